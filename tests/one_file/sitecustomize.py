"""The suite against one file (conftest.py): here and, by the PYTHONPATH, in every process that a test starts, `import
cohere_lite` gives COHERE_LITE_ONE_FILE. Every module that it holds is that file; the others (export/) are the
checkout's, and import from it."""

import os
import sys
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

ONE_FILE = os.environ["COHERE_LITE_ONE_FILE"]
PACKAGE = Path(__file__).parents[2] / "cohere_lite"


class Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        from tools.amalgamate import module_paths

        super().exec_module(module)
        for path in module_paths():
            parts = Path(path.removesuffix("/__init__.py")).with_suffix("").parts
            sys.modules[".".join(["cohere_lite", *parts])] = module
            # `from cohere_lite.extras import hub` looks here: the module that it is given for extras is named
            # cohere_lite
            sys.modules[f"cohere_lite.{parts[-1]}"] = module


class Finder:
    @staticmethod
    def find_spec(name: str, *_: object) -> ModuleSpec | None:
        if name != "cohere_lite":
            return None
        loader = Loader(name, ONE_FILE)
        return spec_from_file_location(name, ONE_FILE, loader=loader, submodule_search_locations=[str(PACKAGE)])


sys.meta_path.insert(0, Finder)
