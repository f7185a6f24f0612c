"""The embedded demonstration model: synthesise speech, train, save a checkpoint in the official format."""
