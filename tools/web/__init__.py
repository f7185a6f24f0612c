"""The recogniser as a web page: see __main__.py."""
