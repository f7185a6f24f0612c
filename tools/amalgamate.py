"""The package -> one file, cohere_lite.py, for those who vendor files rather than folders.

    python -m tools.amalgamate FOLDER [--runtime] [--demo]

Reads    cohere_lite/*.py and contracts/, which are the runtime; extras/, devices/ and cli/, unless --runtime; no other
         folder
Writes   FOLDER/cohere_lite.py: the modules one after the other, in the order in which they use each other, with their
         comments; a module (`import cohere_lite`, `python -m cohere_lite`) and a script (`python cohere_lite.py`) at
         once.  --demo: also FOLDER/demo, the demonstration model, and FOLDER/golden, the self-check's numbers
Refuses  a package whose modules cannot share a namespace: the same name at the top of two of them, or relative imports
         that rename, import modules, or stand in functions that assign the same names
"""

import argparse
import ast
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator
from graphlib import TopologicalSorter
from itertools import takewhile
from pathlib import Path, PurePosixPath

PACKAGE = Path(__file__).parents[1] / "cohere_lite"
RUNTIME = ("*.py", "contracts/*.py")
OPTIONAL = ("extras/*.py", "devices/*.py", "cli/*.py")
HEAD, END = "__init__.py", "__main__.py"
LAZY = ("__getattr__", "__dir__")
WIDTH = 120


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.amalgamate", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="where to write cohere_lite.py")
    parser.add_argument("--runtime", action="store_true", help="the runtime alone, without extras and command")
    parser.add_argument("--demo", action="store_true", help="the demonstration model and the golden one, too")
    args = parser.parse_args(argv)
    args.folder.mkdir(parents=True, exist_ok=True)
    paths = module_paths(RUNTIME if args.runtime else RUNTIME + OPTIONAL)
    text = amalgamate({path: (PACKAGE / path).read_text(encoding="utf-8") for path in paths})
    (args.folder / "cohere_lite.py").write_text(text, encoding="utf-8", newline="\n")
    if args.demo:
        for name in ("demo", "golden"):
            shutil.copytree(PACKAGE / name, args.folder / name, dirs_exist_ok=True)
    return 0


def module_paths(patterns: Iterable[str] = RUNTIME + OPTIONAL) -> list[str]:
    """The modules of one file by their paths in the package: "audio.py", "extras/hub.py"."""
    return [path.relative_to(PACKAGE).as_posix() for pattern in patterns for path in sorted(PACKAGE.glob(pattern))]


def amalgamate(sources: dict[str, str]) -> str:
    """The text of one module that holds all of these, by path; __init__.py becomes its head, __main__.py its end.

    Raises ValueError for modules that cannot share a namespace, or that need one which is not among them.
    """
    trees = {path: ast.parse(source) for path, source in sources.items()}
    _check_names(trees)
    _check_functions(trees)
    needs = {path: _needs(path, tree, trees) for path, tree in trees.items()}
    order = [path for path in TopologicalSorter(needs).static_order() if path not in (HEAD, END)]
    head, *sections = (_section(path, sources[path], trees[path], trees) for path in (HEAD, *order, END))
    note = "# Made by tools/amalgamate of cohere_lite (Apache-2.0): to change something, change the package.\n"
    doc = ast.get_docstring(trees[HEAD], clean=False)
    imports = "from __future__ import annotations\n\n" + _absolute_imports(trees.values())
    return "\n".join([f'"""{doc}"""\n', note, imports, head, *filter(None, sections)])


def _needs(path: str, tree: ast.Module, paths: Collection[str]) -> set[str]:
    """The modules that must come before this one: those that it imports from at its top."""
    needs = _relative_imports(path, tree.body, paths)
    for node, target in needs:
        if target not in paths:
            raise ValueError(f"{path}, line {node.lineno}: needs {target}, which is left out")
    return {target for _, target in needs} & {*paths}


def _relative_imports(path: str, block: list[ast.stmt], paths: Collection[str]) -> list[tuple[ast.stmt, str]]:
    """Those among these statements, and the paths of the modules that they import from."""
    found: list[tuple[ast.stmt, str]] = []
    for node in block:
        if not (isinstance(node, ast.ImportFrom) and node.level):
            continue
        place = PurePosixPath(path).parents[node.level - 1].joinpath(*(node.module or "").split("."))
        for alias in node.names:
            if alias.asname not in (None, alias.name):
                raise ValueError(f"{path}, line {node.lineno}: a relative import that renames {alias.name}")
            if {f"{place / alias.name}.py", f"{place / alias.name}/__init__.py"} & {*paths}:
                raise ValueError(f"{path}, line {node.lineno}: imports the module {alias.name}, not names of it")
        package = (place / "__init__.py").as_posix()
        found.append((node, package if package in paths else f"{place}.py"))
    return found


def _check_names(trees: dict[str, ast.Module]) -> None:
    """Every name at the top of a module must mean the same in all of them."""
    meanings: dict[str, str] = {}
    for path, tree in trees.items():
        for node in tree.body:
            for name, meaning in _names(node, path):
                if meanings.setdefault(name, meaning) != meaning:
                    raise ValueError(f"{name} is {meanings[name]} and {meaning}: one file can have only one of them")


def _check_functions(trees: dict[str, ast.Module]) -> None:
    """Once its import has been dropped, a name that a function assigns too would be a local one without a value."""
    for path, tree in trees.items():
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            nodes = [*ast.walk(function)]
            imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.level]
            imported = {alias.name for node in imports for alias in node.names}
            assigned = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
            if both := imported & assigned:
                raise ValueError(f"{path}, line {function.lineno}: imports and assigns {', '.join(sorted(both))}")


def _names(node: ast.stmt, path: str) -> list[tuple[str, str]]:
    """What a statement at the top of a module defines or imports from outside: names, and what they mean."""
    here = f"defined in {path}"
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
    if not (isinstance(node, ast.Expr) or is_main_guard or _is_for_type_checkers(node)):
        raise ValueError(f"{path}, line {node.lineno}: a statement at the top that may define names")
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


def _section(path: str, source: str, tree: ast.Module, paths: Collection[str]) -> str:
    """A module under its path and docstring as comments, less what one file does not need. "" if nothing is left."""
    lines: list[str | None] = [*source.splitlines()]
    for node, text in _replacements(path, tree, paths):
        first, last = node.lineno - 1, node.end_lineno or 0
        lines[first:last] = [" " * node.col_offset + text if text else None, *[None] * (last - first - 1)]
        if not text and node.col_offset and lines[last : last + 1] == [""]:
            lines[last] = None  # the blank line after the imports of a function
    body = "\n".join(line for line in lines if line is not None).strip("\n")
    if path == HEAD or not body:
        return body and f"{body}\n"
    title = [f"---- {path}", *(ast.get_docstring(tree) or "").splitlines()]
    comment = "".join(f"# {line}".rstrip() + "\n" for line in title)
    return f"\n{comment}\n\n{body}\n"


def _replacements(path: str, tree: ast.Module, paths: Collection[str]) -> Iterator[tuple[ast.stmt, str]]:
    """Statements, and what stands in their place: "" for nothing. Inner ones come before those around them."""
    gone: set[ast.stmt] = {*tree.body[: ast.get_docstring(tree) is not None], *_leading_imports(tree)}
    for block in reversed([*_blocks(tree)]):
        imports = dict(_relative_imports(path, block, paths))
        gone |= {node for node in block if _is_for_type_checkers(node) or imports.get(node) in paths}
        for node in block:
            if node in gone:
                yield node, "pass" if gone.issuperset(block) and node is block[0] and node.col_offset else ""
            elif node in imports:
                yield node, f'raise ImportError("cohere_lite/{imports[node]} is not in this file")'


def _blocks(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    """Every list of statements; outer ones come before those inside them."""
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            if isinstance(block := getattr(node, field, None), list):  # a lambda's body is none
                yield block


def _is_for_type_checkers(node: ast.stmt) -> bool:
    """Or for them and, else, what imports a name when it is asked for: in one file every name is there."""
    if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
        return False
    return all(isinstance(other, ast.FunctionDef) and other.name in LAZY for other in node.orelse)


if __name__ == "__main__":
    sys.exit(main())
