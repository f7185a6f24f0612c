"""The command line: options, run, terminal, stdin. The runtime works without this folder."""
