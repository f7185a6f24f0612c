"""The package -> one file, cohere_lite.py, for those who vendor files rather than folders.

    python -m tools.amalgamate FOLDER [--demo]

Reads    cohere_lite/*.py
Writes   FOLDER/cohere_lite.py: the modules one after the other, in the order in which they use each other, with their
         comments; a module (`import cohere_lite`, `python -m cohere_lite`) and a script (`python cohere_lite.py`) at
         once.  --demo: also FOLDER/demo, the demonstration model
Refuses  a package whose modules cannot share a namespace: the same name at the top of two of them, or relative imports
         that rename, or that stand anywhere but at the top
"""

import argparse
import ast
import shutil
import sys
from collections.abc import Iterable
from graphlib import TopologicalSorter
from itertools import takewhile
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "cohere_lite"
WIDTH = 120


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.amalgamate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="where to write cohere_lite.py")
    parser.add_argument("--demo", action="store_true", help="the demonstration model, too")
    args = parser.parse_args(argv)
    args.folder.mkdir(parents=True, exist_ok=True)
    text = amalgamate({path.stem: path.read_text(encoding="utf-8") for path in PACKAGE.glob("*.py")})
    (args.folder / "cohere_lite.py").write_text(text, encoding="utf-8", newline="\n")
    if args.demo:
        shutil.copytree(PACKAGE / "demo", args.folder / "demo", dirs_exist_ok=True)
    return 0


def amalgamate(sources: dict[str, str]) -> str:
    """The text of one module that holds all of them, by name; "__init__" becomes its head, "__main__" its end.

    Raises ValueError for modules that cannot share a namespace.
    """
    trees = {name: ast.parse(source) for name, source in sources.items()}
    needs = {name: _relative_imports(name, tree) for name, tree in trees.items()}
    _check_names(trees)
    order = [name for name in TopologicalSorter(needs).static_order() if name not in ("__init__", "__main__")]
    head, *sections = (_section(name, sources[name], trees[name]) for name in ("__init__", *order, "__main__"))
    note = "# Made by tools/amalgamate of cohere_lite (Apache-2.0): to change something, change the package.\n"
    doc = ast.get_docstring(trees["__init__"], clean=False)
    imports = "from __future__ import annotations\n\n" + _absolute_imports(trees.values())
    return "\n".join([f'"""{doc}"""\n', note, imports, head, *sections])


def _relative_imports(name: str, tree: ast.Module) -> set[str]:
    """The modules that a module uses; `from . import __version__` is the head's, which all follow."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            if node not in _leading_imports(tree) or any(alias.asname for alias in node.names):
                raise ValueError(f"{name}.py, line {node.lineno}: a relative import that renames, or not at the top")
            found |= {node.module} if node.module else set()
    return found


def _check_names(trees: dict[str, ast.Module]) -> None:
    """Every name at the top of a module must mean the same in all of them."""
    meanings: dict[str, str] = {}
    for module, tree in trees.items():
        for node in tree.body:
            for name, meaning in _names(node, module):
                if meanings.setdefault(name, meaning) != meaning:
                    raise ValueError(f"{name} is {meanings[name]} and {meaning}: one file can have only one of them")


def _names(node: ast.stmt, module: str) -> list[tuple[str, str]]:
    """What a statement at the top of a module defines or imports from outside: names, and what they mean."""
    here = f"defined in {module}.py"
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [(node.name, here)]
    if isinstance(node, (ast.Assign, ast.AnnAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = [name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        return [(name.id, here) for name in names if isinstance(name.ctx, ast.Store)]
    if isinstance(node, ast.Import):
        return [(alias.asname or alias.name.partition(".")[0], f"import {alias.name}") for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        aliases = [] if node.level else node.names  # relative ones bring in what is defined elsewhere
        return [(alias.asname or alias.name, f"from {node.module} import {alias.name}") for alias in aliases]
    is_main_guard = isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
    if not (isinstance(node, ast.Expr) or is_main_guard):
        raise ValueError(f"{module}.py, line {node.lineno}: a statement at the top that may define names")
    return []


def _leading_imports(tree: ast.Module) -> list[ast.Import | ast.ImportFrom]:
    """Those that only the docstring comes before. Later ones stay where they are: what comes before them must."""
    body = tree.body[1:] if ast.get_docstring(tree) is not None else tree.body
    return [*takewhile(lambda node: isinstance(node, (ast.Import, ast.ImportFrom)), body)]  # type: ignore[list-item]


def _absolute_imports(trees: Iterable[ast.Module]) -> str:
    """The standard library's, a blank line, the others."""
    modules: set[tuple[str, str]] = set()
    members: dict[str, set[str]] = {}
    for node in (node for tree in trees for node in _leading_imports(tree)):
        if isinstance(node, ast.Import):
            modules |= {(alias.name, ast.unparse(alias)) for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module != "__future__":
            members.setdefault(str(node.module), set()).update(ast.unparse(alias) for alias in node.names)
    lines = [(module, f"import {text}") for module, text in sorted(modules)]
    for module, names in sorted(members.items()):
        line = f"from {module} import {', '.join(sorted(names))}"
        if len(line) > WIDTH:
            line = f"from {module} import (\n" + "".join(f"    {name},\n" for name in sorted(names)) + ")"
        lines.append((module, line))
    ours: dict[bool, list[str]] = {True: [], False: []}
    for module, line in lines:
        ours[module.partition(".")[0] in sys.stdlib_module_names].append(line)
    return "\n".join([*ours[True], "", *ours[False], ""])


def _section(name: str, source: str, tree: ast.Module) -> str:
    """A module without its imports, under its name and its docstring as a comment."""
    lines: list[str | None] = [*source.splitlines()]
    doc = (ast.get_docstring(tree) or "").splitlines()
    dropped: list[ast.stmt] = [*_leading_imports(tree)]
    if doc:
        dropped.append(tree.body[0])
    for node in dropped:
        lines[node.lineno - 1 : node.end_lineno] = [None] * ((node.end_lineno or 0) - node.lineno + 1)
    body = "\n".join(line for line in lines if line is not None).strip("\n")
    if name == "__init__":
        return body + "\n"
    comment = "".join(f"# {line}".rstrip() + "\n" for line in [f"---- {name}.py", *doc])
    return f"\n{comment}\n\n{body}\n"


if __name__ == "__main__":
    sys.exit(main())
