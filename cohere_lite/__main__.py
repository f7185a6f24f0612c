"""`python -m cohere_lite`, `python FOLDER` for a copy of any name, or run() from here: the command, cli/run.py."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cli.run import run
else:

    def __getattr__(name: str) -> object:
        """`run`, when it is asked for: not every copy has it."""
        if name == "run":
            from .cli.run import run

            return run
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    if not __package__ and __file__.endswith("__main__.py"):
        # `python FOLDER`, or a zip of what is in it: there is no package yet, and FOLDER is where Python looks first,
        # so that our files would hide others' modules
        from importlib.machinery import PathFinder
        from os.path import abspath, dirname
        from runpy import run_module

        folder = dirname(abspath(__file__))
        sys.path[:] = [path for path in sys.path if abspath(path) != folder]
        found = PathFinder.find_spec("__init__", [folder])
        package = type(sys)("cohere_lite")
        package.__path__ = [folder]
        sys.modules["cohere_lite"] = package
        exec(found.loader.get_code("__init__"), vars(package))  # type: ignore[union-attr]
        run_module("cohere_lite.__main__", run_name="__main__", alter_sys=True)
    try:
        from .cli.run import run
    except ImportError as error:
        raise SystemExit(f"error: this copy lacks what the command needs: {error}") from None
    run()
