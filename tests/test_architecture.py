"""Imports run downwards only, and each library is imported where DESIGN says: read from the source, nothing is run.

An import inside a function counts like any other, but for the optional libraries, which may be imported nowhere else.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Who may import whom: a part imports itself and what stands on a line above it, never what stands beside or below.
LAYERS = [
    {"exceptions"},
    {"modules", "datasets"},
    {"_compat", "_docstrings"},
    {"narwhals_plugin"},
    {"training"},
    {"fusion"},
    {"base"},
    {"estimators"},
    {"model_selection", "inspection", "persistence"},
    {"cli"},
    {"__main__"},
]
RANK = {part: rank for rank, parts in enumerate(LAYERS) for part in parts}
# The public list imports everything and is imported by nothing.
PUBLIC_LIST = "__init__"

OPTIONAL = {"PIL", "dask", "distributed", "kornia", "matplotlib", "mpi4py", "onnx", "onnxruntime", "onnxscript"}


@dataclass(frozen=True)
class Import:
    """One name that one source file imports."""

    module: str  # skpt.training.loop
    line: int
    target: str  # the module it comes from, after following re-exports: torch.nn, skpt.modules.layers
    name: str  # what is imported from there; empty for a whole module
    when_imported: bool  # runs at import of the module: not in a function, not for a type checker only

    @property
    def library(self) -> str:
        return self.target.partition(".")[0]

    def __str__(self):
        return f"{self.module}:{self.line} imports {self.target}{' ' + self.name if self.name else ''}"


def part_of(module: str) -> str:
    """skpt.training.loop -> training; skpt -> the public list."""
    return [*module.split("."), PUBLIC_LIST][1]


class Package:
    """The source of a package, by module name."""

    def __init__(self, folder: Path):
        self.paths = {}
        for path in sorted(folder.rglob("*.py")):
            *parents, stem = path.relative_to(folder.parent).with_suffix("").parts
            self.paths[".".join(parents if stem == "__init__" else [*parents, stem])] = path
        self.trees = {module: ast.parse(path.read_text("utf-8")) for module, path in self.paths.items()}
        self.imports = [found for module in self.trees for found in self._imports_of(module)]

    def _imports_of(self, module: str) -> Iterator[Import]:
        for node, when_imported in _walk(self.trees[module]):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(module, node.lineno, alias.name, "", when_imported)
            elif isinstance(node, ast.ImportFrom):
                source = self._absolute(module, node)
                for alias in node.names:
                    yield Import(module, node.lineno, *self._origin(source, alias.name), when_imported)

    def _absolute(self, module: str, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module
        package = module.split(".") if self.paths[module].stem == "__init__" else module.split(".")[:-1]
        return ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])

    def _origin(self, source: str, name: str) -> tuple[str, str]:
        """Where `from source import name` leads: to a module, through the re-exports of each __init__ file."""
        if f"{source}.{name}" in self.trees:
            return f"{source}.{name}", ""
        for node in ast.walk(self.trees.get(source, ast.Module([], []))):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    if (alias.asname or alias.name) == name and self._absolute(source, node).startswith("skpt"):
                        return self._origin(self._absolute(source, node), alias.name)
        return source, name


def _walk(node: ast.AST, when_imported: bool = True) -> Iterator[tuple[ast.AST, bool]]:
    """Every node, and whether it runs at import."""
    yield node, when_imported
    for field, value in ast.iter_fields(node):
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and field == "body"
        later |= isinstance(node, ast.If) and field == "body" and "TYPE_CHECKING" in ast.dump(node.test)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk(child, when_imported and not later)


PACKAGE = Package(ROOT / "skpt")
OURS = [found for found in PACKAGE.imports if found.library == "skpt"]
THEIRS = [found for found in PACKAGE.imports if found.library != "skpt"]


def listed(imports) -> str:
    return "\n".join(map(str, imports))


@pytest.mark.parametrize("module", PACKAGE.trees)
def test_every_file_belongs_to_a_part_of_the_design(module):
    assert part_of(module) in {*RANK, PUBLIC_LIST}, f"give {part_of(module)!r} its place in LAYERS, and in DESIGN"


def test_imports_run_downwards_only():
    def is_downwards(found):
        importer, imported = part_of(found.module), part_of(found.target)
        return importer in (imported, PUBLIC_LIST) or RANK.get(imported, len(RANK)) < RANK.get(importer, 0)

    upwards = [found for found in OURS if not is_downwards(found)]
    assert not upwards, f"these imports run upwards or sideways:\n{listed(upwards)}"


def test_modules_import_torch_alone():
    allowed = {"torch", *sys.stdlib_module_names}
    others = [found for found in THEIRS if part_of(found.module) == "modules" and found.library not in allowed]
    assert not others, f"skpt.modules is plain torch, but:\n{listed(others)}"


def test_training_and_fusion_know_no_named_network():
    def defines_a_network(module):
        return any(
            isinstance(node, ast.ClassDef) and node.name.endswith("Module") for node in PACKAGE.trees[module].body
        )

    networks = {module for module in PACKAGE.trees if part_of(module) == "modules" and defines_a_network(module)}
    known = [found for found in OURS if part_of(found.module) in ("training", "fusion") and found.target in networks]
    assert networks, "no file of skpt.modules defines a class <Method>Module: this test has lost its subject"
    assert not known, f"what trains any module must not know one:\n{listed(known)}"


def test_datasets_import_nothing_of_skpt_but_exceptions():
    others = [
        found
        for found in OURS
        if part_of(found.module) == "datasets" and part_of(found.target) not in ("datasets", "exceptions")
    ]
    assert not others, listed(others)


def test_optional_libraries_are_imported_where_used():
    eager = [found for found in THEIRS if found.library in OPTIONAL and found.when_imported]
    assert not eager, f"import these inside the function that needs them:\n{listed(eager)}"


def is_private(dotted: str) -> bool:
    return any(name.startswith("_") and not name.startswith("__") for name in dotted.split("."))


def test_private_names_of_other_libraries_are_imported_in_compat_alone():
    private = [
        found
        for found in THEIRS
        if part_of(found.module) != "_compat" and (is_private(found.target) or is_private(found.name))
    ]
    assert not private, f"import these in skpt/_compat.py, once and with a reason:\n{listed(private)}"


@pytest.mark.parametrize("module", [module for module in PACKAGE.trees if part_of(module) != "_compat"])
def test_private_names_of_other_libraries_are_used_in_compat_alone(module):
    """The same rule for ``torch._name``, which needs no import of its own."""
    tree = PACKAGE.trees[module]
    libraries = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            libraries |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
    private = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = node.value
            while isinstance(owner, ast.Attribute):
                owner = owner.value
            if isinstance(owner, ast.Name) and owner.id in libraries:
                private.append(f"{module}:{node.lineno} uses {ast.unparse(node)}")
    assert not private, "\n".join(private)


class TestTheReaderItself:
    """What the tests above would see, on a package made up for them."""

    @pytest.fixture
    def package(self, tmp_path):
        sources = {
            "skpt/__init__.py": "from skpt.modules import MLPModule",
            "skpt/modules/__init__.py": "from .mlp import MLPModule",
            "skpt/modules/mlp.py": "class MLPModule: pass",
            "skpt/training/__init__.py": "",
            "skpt/training/loop.py": (
                "from __future__ import annotations\n"
                "import torch._dynamo\n"
                "from typing import TYPE_CHECKING\n"
                "if TYPE_CHECKING:\n"
                "    import PIL\n"
                "try:\n"
                "    import onnx\n"
                "except ImportError:\n"
                "    pass\n"
                "def draw():\n"
                "    from matplotlib import pyplot\n"
                "from .. import MLPModule\n"
                "from ..modules import mlp\n"
            ),
        }
        for name, source in sources.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        return Package(tmp_path / "skpt")

    def test_imports_are_followed_to_their_origin(self, package):
        found = {(each.line, each.target, each.name) for each in package.imports if each.module == "skpt.training.loop"}
        assert (2, "torch._dynamo", "") in found
        assert (12, "skpt.modules.mlp", "MLPModule") in found
        assert (13, "skpt.modules.mlp", "") in found

    def test_what_runs_at_import_is_told_from_what_does_not(self, package):
        eager = {each.library: each.when_imported for each in package.imports}
        assert eager["onnx"] and eager["torch"]
        assert not eager["matplotlib"] and not eager["PIL"]
