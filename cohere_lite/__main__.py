"""`python -m cohere_lite`: the command line, which is cli/run.py."""

from .cli.run import run

if __name__ == "__main__":
    run()
