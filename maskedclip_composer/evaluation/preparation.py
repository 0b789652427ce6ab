"""How the photographs of a labelled set were prepared, as the preparation itself has noted it beside its shards."""

from pathlib import Path

from maskedclip_composer.data.photograph import REPORT, Recipe, recipe_of_report
from maskedclip_composer.evaluation.data import LabelledData
from maskedclip_composer.evaluation.photographs import FolderPhotographs


def preparation(data: LabelledData) -> tuple[Recipe | None, str]:
    """Return how the photographs of a set were prepared (None: not at all), and where that is known from."""
    if isinstance(data.train.photographs, FolderPhotographs):
        return None, "files as they are, a folder per class"
    recipe = recorded_recipe(Path(data.place))
    if recipe is not None:
        return recipe, f"{REPORT} beside the shards"
    return Recipe(), f"assumed: the shards came without {REPORT}"


def recorded_recipe(folder: Path) -> Recipe | None:
    """Read the report in a folder of shards, or above it; None where there is none of one preparation."""
    return recipe_of_report(folder / REPORT) or recipe_of_report(folder.parent / REPORT)
