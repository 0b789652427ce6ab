"""The tree that a data set needs, printed, and what of it a folder lacks."""

from data_prep.readers.dataset import Dataset, Part
from data_prep.readers.tree import Tree


def layout(dataset: Dataset, tree: Tree | None = None) -> str:
    """Return one line per folder or sheet, with the variants of mirrors; with a tree, whether each is in it."""
    lines: dict[str, None] = {}
    for part in dataset.parts:
        mark = "" if tree is None else "found    " if tree.folder(part.images) else "MISSING  "
        lines[f"  {mark}{_folder(part.images[0])}{part.example}{_others(part.images)}{_aside(part, part.optional)}"] = (
            None
        )
        if part.sheets:
            paths = tuple(path for sheet in part.sheets for path in sheet.paths)
            mark = "" if tree is None else "found    " if tree.file(paths) else "MISSING  "
            optional = part.optional or part.sheet_optional
            lines[f"  {mark}{paths[0]}{_others(paths)}{_aside(part, optional)}"] = None
        for path in (*part.corrections, *part.pairs):
            mark = "" if tree is None else "found    " if tree.file((path,)) else "MISSING  "
            lines[f"  {mark}{path}{_aside(part, True)}"] = None
    return "\n".join(lines)


def missing(dataset: Dataset, tree: Tree) -> list[str]:
    """Return what `dataset` cannot be read without and `tree` has not, one phrase each."""
    absent: dict[str, None] = {}
    complete = 0
    for part in dataset.parts:
        folder = tree.folder(part.images)
        paths = tuple(path for sheet in part.sheets for path in sheet.paths)
        unlabelled = bool(paths) and not part.sheet_optional and tree.file(paths) is None
        complete += folder is not None and not unlabelled
        if part.optional:
            continue
        if folder is None:
            absent[f"the folder {_folder(part.images[0])}{_others(part.images)}"] = None
        if unlabelled:
            absent[f"the sheet {paths[0]}{_others(paths)}"] = None
    if not absent and not complete:
        return [f"the folder {_folder(part.images[0])}" for part in dataset.parts]
    return list(absent)


def _folder(pattern: str) -> str:
    return "" if pattern == "." else f"{pattern}/"


def _others(paths: tuple[str, ...]) -> str:
    others = [path for path in dict.fromkeys(paths) if path not in (paths[0], ".")]
    return f"   (or {', '.join(others)})" if others else ""


def _aside(part: Part, optional: bool) -> str:
    said = [part.split] * bool(part.split) + ["optional"] * optional
    return f"   [{', '.join(said)}]" if said else ""
