"""Imports point down only, and heavy parts are loaded when they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import forearm

PACKAGE = Path(str(forearm.__file__)).parent

# Lower layers first. Parts of one layer are siblings: they do not import each other.
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"errors"}),
    frozenset({"core"}),
    frozenset({"attacks", "defenses", "models", "data", "images"}),
    frozenset({"evaluate"}),
    frozenset({"jobs"}),
    frozenset({"report", "engines"}),
    frozenset({"service"}),
    frozenset({""}),  # the package itself: its front doors
    frozenset({"cli"}),
    frozenset({"__main__"}),
)
LEAF = "registry"  # names are data: it imports errors alone, and any part may read its tables
ONLY_CORE = frozenset({"attacks", "defenses"})
EXCEPTIONS = {
    # The training loop and its recipes speak of batches: the two types of `data.batches` are the protocol between them.
    ("defenses.training", "data.batches"),
}
LAZY = frozenset({"torchvision", "timm"})  # optional, slow, and broken on some builds: never at import time
HEAVY = ("torch._dynamo", "torch._inductor", "torchvision", "timm", "matplotlib", "fastapi", "ray")


def modules() -> dict[str, Path]:
    """Every module of the package by its name below `forearm` ("" is the package itself)."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imports(tree: ast.AST, known: frozenset[str]) -> set[str]:
    """The modules of the package that a tree imports, wherever in it, by their names below `forearm`.

    The package itself counts ("") unless its version is all that is asked of it: any part may say which version it is.
    """
    found = set()
    asked = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n.value) == "forearm"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name != "forearm" or asked != {"__version__"}}
        elif isinstance(node, ast.ImportFrom):
            base = str(node.module) if not node.level else f"relative import of level {node.level}"
            inner = {f"{base}.{alias.name}" for alias in node.names} - {"forearm.__version__"}
            found |= {name if name.removeprefix("forearm.") in known else base for name in inner}
    return {n.removeprefix("forearm").removeprefix(".") for n in found if n.split(".")[0] == "forearm" or "relative" in n}


def layer(part: str) -> int:
    """The height of a part. A part that no layer names is a mistake of the layout."""
    for height, parts in enumerate(LAYERS):
        if part in parts:
            return height
    raise LookupError(f"{part!r} is in no layer")


def complaints(name: str, source: str, known: frozenset[str]) -> list[str]:
    """What is wrong with the imports of the module `name`."""
    wrong = []
    part = name.split(".")[0]
    for other in sorted(imports(ast.parse(source), known)):
        target = other.split(".")[0]
        if target == part or any(name.startswith(a) and other == b for a, b in EXCEPTIONS):
            continue
        if part == LEAF:
            allowed = target == "errors"
        elif target == LEAF:
            allowed = part != "errors"
        elif part in ONLY_CORE:
            allowed = target in {"errors", "core"}
        else:
            allowed = target in set().union(*LAYERS) and layer(target) < layer(part)
        if not allowed:
            wrong.append(f"{name} imports {other}")
    return wrong


def early(source: str) -> set[str]:
    """The lazy packages that a module imports outside of every function."""
    found = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).split(".")[0])
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return found & LAZY


def loaded(statement: str) -> set[str]:
    """Which heavy modules a fresh interpreter holds after `statement`."""
    code = f"import sys\n{statement}\nprint('held:', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.rpartition("held:")[2].split())


KNOWN = frozenset(modules())


@pytest.mark.parametrize("name", modules())
def test_imports_point_down(name: str) -> None:
    assert complaints(name, modules()[name].read_text(), KNOWN) == []


@pytest.mark.parametrize("name", modules())
def test_every_module_has_a_layer(name: str) -> None:
    part = name.split(".")[0]
    assert part == LEAF or layer(part) >= 0


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("core.norms", "from forearm.attacks import pgd"),
        ("core.norms", "import forearm.models.load"),
        ("attacks.pgd", "from forearm.models.load import load"),
        ("attacks.pgd", "from forearm.defenses.inference import conceal"),
        ("defenses.preemptive.mcgs", "from forearm.data.batches import Batch"),
        ("defenses.training.loop", "from forearm.data.cifar import cifar10"),
        ("images.codec", "from forearm.models import load"),
        ("models.load", "from forearm.images import codec"),
        ("data.folder", "def f():\n    from forearm.images import codec"),
        ("evaluate.engine", "from forearm.jobs.audit import audit"),
        ("jobs.audit", "from forearm.cli import app"),
        ("jobs.audit", "from forearm import load_model"),
        ("jobs.audit", "import forearm"),
        ("jobs.audit", "import forearm\nforearm.__version__ and forearm.arm"),
        ("jobs.audit", "if TYPE_CHECKING:\n    from forearm.service import app"),
        ("registry", "from forearm.core.norms import LINF"),
        ("errors", "from forearm.registry import bind"),
        ("errors", "from forearm.core.norms import LINF"),
        ("core.norms", "from . import noise"),
        ("jobs.audit", "from forearm.helpers import f"),
    ],
)
def test_a_wrong_import_is_seen(name: str, source: str) -> None:
    assert len(complaints(name, source, KNOWN)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("core.threat", "from forearm.core import losses\nfrom forearm.errors import SpecError\nimport torch"),
        ("attacks.pgd", "from forearm.core.norms import L1\nfrom forearm.registry import bind"),
        ("defenses.training.loop", "from forearm.data.batches import Batch"),
        ("jobs.protect", "from forearm.images.codec import read\nfrom forearm.evaluate import engine"),
        ("jobs.audit", "import forearm\nprint(forearm.__version__)"),
        ("jobs.audit", "from forearm import __version__"),
        ("cli.app", "import forearm\nfrom forearm.service import app"),
        ("", "from forearm.jobs import protect"),
    ],
)
def test_a_right_import_is_let_through(name: str, source: str) -> None:
    assert complaints(name, source, KNOWN) == []


def test_a_part_without_a_layer_is_seen() -> None:
    with pytest.raises(LookupError):
        layer("helpers")


@pytest.mark.parametrize("name", modules())
def test_lazy_packages_are_not_imported_early(name: str) -> None:
    assert early(modules()[name].read_text()) == set()


def test_an_early_import_is_seen() -> None:
    assert early("import torchvision.models") == {"torchvision"}
    assert early("try:\n    from timm import create_model\nexcept ImportError:\n    pass") == {"timm"}
    assert early("class A:\n    import timm") == {"timm"}
    assert early("def f():\n    import timm\n    import torchvision") == set()


def test_importing_the_package_is_light() -> None:
    assert loaded("import forearm") == set()


def test_asking_for_help_is_light() -> None:
    ask = "sys.argv = ['forearm', '--help']\nfrom forearm.cli.app import main"
    assert loaded(f"{ask}\ntry:\n    main()\nexcept SystemExit:\n    pass") == set()


def test_a_heavy_import_is_seen() -> None:
    """The mutant, without the seconds that a real one takes."""
    assert loaded("import types; sys.modules['torch._dynamo'] = types.ModuleType('torch._dynamo')") == {"torch._dynamo"}
