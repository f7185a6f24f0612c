"""Data sets as people have them: one file per layout."""
