"""`python -m cohere_lite`: the command line, which is cli/run.py."""

if __name__ == "__main__":
    try:
        from .cli.run import run
    except ImportError as error:
        raise SystemExit(f"error: this copy lacks what the command needs: {error}") from None
    run()
