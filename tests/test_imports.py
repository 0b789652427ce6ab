"""Who may import whom. Imports under TYPE_CHECKING do not count: they never run."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "maskedclip_composer"

# For each area, the areas of the package that it may import besides itself, and outside packages that it may not.
# An area is a folder or a file of the package, or data_prep.
MAY_IMPORT: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), {"torch", "composer"}),
    "compute": ({"errors"}, {"torch", "composer", "streaming", "omegaconf"}),
    "types": (set(), {"composer"}),
    "distributed": (set(), {"composer"}),
    "losses": (set(), {"composer", "timm", "transformers", "omegaconf", "streaming"}),
    "data": ({"errors", "types"}, {"composer", "timm", "transformers"}),
    "models": ({"errors", "types", "compute"}, {"streaming", "omegaconf"}),
    "objectives": ({"errors", "losses", "models", "distributed", "compute"}, {"composer", "streaming", "omegaconf"}),
    "algorithms": ({"errors", "distributed", "models", "objectives"}, {"streaming", "omegaconf"}),
    "config_text": ({"errors"}, {"torch", "composer", "streaming"}),
    "config_file": ({"errors", "config_text"}, {"torch", "composer", "streaming"}),
    "times": ({"errors"}, {"torch", "composer"}),
    "optim": ({"errors", "times"}, {"composer", "streaming", "omegaconf"}),
    "evaluation": (
        {
            "errors",
            "callbacks",
            "cards",  # paths.py, which imports redaction alone
            "config",
            "config_file",
            "data",
            "export",
            "models",
            "objectives",
            "rank_failure",
            "use",  # zero-shot; `use` in turn embeds with encoders of others
        },
        {"omegaconf"},
    ),
    "initial_weights": (
        {"errors", "callbacks", "config", "evaluation", "export", "models", "initial_parts"},
        {"composer", "streaming"},
    ),
    "initial_parts": ({"errors", "config", "config_file", "evaluation", "export"}, {"composer", "streaming"}),
    "rank_board": ({"errors", "callbacks"}, {"composer", "streaming", "omegaconf"}),
    "rank_failure": ({"errors", "callbacks", "rank_board"}, {"composer", "streaming", "omegaconf"}),
    "nodes": ({"errors", "config", "rank_board"}, {"streaming", "omegaconf"}),
    "run_settings": ({"errors", "callbacks", "config", "config_file"}, {"composer", "streaming", "torch"}),
    "costs": (
        {"errors", "times", "types", "compute", "config", "data", "distributed", "models", "build"},
        {"omegaconf"},
    ),
    "sweep": (
        {"errors", "callbacks", "config", "config_file", "evaluation", "run_settings"},
        {"composer", "streaming", "torch"},
    ),
    "use": (
        {"errors", "config", "config_file", "data", "export", "models", "objectives", "callbacks", "evaluation"},
        {"composer", "omegaconf"},
    ),
    "visualize": (
        {"errors", "callbacks", "config", "config_file", "export", "models", "objectives", "report", "use"},
        {"composer", "streaming", "omegaconf"},
    ),
    # `use` reads what `export` writes, and `export` writes what `use` has loaded: two areas, no circle of files.
    # Likewise `cards`, which compares a run with encoders, tells the terms of what is exported.
    "export": (
        {"__main__", "errors", "callbacks", "cards", "data", "models", "use"},
        {"composer", "streaming", "omegaconf"},
    ),
    "report": ({"errors", "callbacks", "evaluation"}, {"composer", "streaming", "timm", "omegaconf"}),
    "dashboard": (
        {"errors", "times", "callbacks", "cards", "evaluation", "report"},
        {"torch", "streaming", "timm", "omegaconf"},
    ),
    "cards": ({"errors", "callbacks", "data", "evaluation", "report"}, {"composer", "streaming", "timm", "omegaconf"}),
    "data_prep": ({"errors", "callbacks", "cards", "data", "config_file"}, {"composer", "timm"}),
}
# The ComposerModel holds objectives, whose forward takes the models' views: the one place where both meet.
EXCEPTIONS = {
    ("models/pretrain.py", "objectives"),
    ("errors.py", "callbacks"),  # redaction.py, which imports nothing
}
# composer.core.DataSpec is what the loader hands to the Trainer.
OUTSIDE_EXCEPTIONS = {
    ("data/loader.py", "composer"),
    ("evaluation/config.py", "omegaconf"),  # MISSING, for keys without a default
}
# It needs the whole network of a run, of which only the shapes.
BUILDERS = ["maskedclip_composer/costs/dry_run.py"]


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted names of modules that `path` imports at run time."""

    def walk(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a name comes from"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    yield from walk(ast.parse(path.read_text()))


def files(area: str) -> list[Path]:
    if area == "data_prep":
        return sorted((ROOT / area).rglob("*.py"))
    file = ROOT / PACKAGE / f"{area}.py"
    return [file] if file.is_file() else sorted((ROOT / PACKAGE / area).rglob("*.py"))


@pytest.mark.parametrize("area", MAY_IMPORT)
def test_an_area_imports_only_what_lies_below_it(area):
    inside, forbidden = MAY_IMPORT[area]
    wrong = []
    assert files(area)
    for path in files(area):
        short = path.relative_to(ROOT / PACKAGE if area != "data_prep" else ROOT).as_posix()
        for name in imported(path):
            top, *rest = name.split(".")
            if top == PACKAGE:
                other = rest[0] if rest else ""
                if other not in inside | {area} and (short, other) not in EXCEPTIONS:
                    wrong.append(f"{short} imports {name}")
            elif (
                (top in forbidden and (short, top) not in OUTSIDE_EXCEPTIONS)
                or top == "tests"
                or (top == "data_prep" and area != "data_prep")
            ):
                wrong.append(f"{short} imports {name}")
    assert not wrong


def test_losses_import_torch_and_jaxtyping_alone():
    tops = {name.split(".")[0] for path in files("losses") for name in imported(path)}
    assert tops <= {"torch", "jaxtyping", "collections", PACKAGE}  # of the package other losses, by MAY_IMPORT
    names = {name for path in files("losses") for name in imported(path)}
    assert not [name for name in names if name.startswith("torch.distributed")]


def test_only_build_the_entry_points_and_these_import_build():
    importers = [
        path.relative_to(ROOT).as_posix()
        for path in [*(ROOT / PACKAGE).rglob("*.py"), *(ROOT / "data_prep").rglob("*.py")]
        if any(name.startswith(f"{PACKAGE}.build") for name in imported(path))
    ]
    assert sorted(importers) == BUILDERS


def test_statistics_are_of_arrays_alone():
    tops = {
        name.split(".")[0]
        for path in (ROOT / PACKAGE / "evaluation" / "statistics").glob("*.py")
        for name in imported(path)
    }
    assert tops <= {"collections", "dataclasses", "typing", "numpy", "scipy", "jaxtyping", PACKAGE}


@pytest.mark.parametrize("module", ["config", "sweep.plan"])
def test_a_config_is_read_without_composer(module):
    """`import composer` takes ten seconds: nobody should wait that long for the message about a typing error."""
    code = f"import sys, maskedclip_composer.{module}; sys.exit('composer' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr or "composer was imported"
