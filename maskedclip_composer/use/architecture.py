"""What has to be known to build a trained model again, beside its weights."""

import logging
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from maskedclip_composer.config import ObjectivesConfig, TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.data.photograph import REPORT, Recipe, recipe_of_report
from maskedclip_composer.errors import UserError
from maskedclip_composer.models.branch import BridgeConfig
from maskedclip_composer.models.text import FOLDER
from maskedclip_composer.models.vit import IMAGE_MEAN, IMAGE_STD, ImageEncoderConfig
from maskedclip_composer.objectives.base import ObjectiveConfig

log = logging.getLogger(__name__)

FORMAT = "maskedclip-1"


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The text side of a model.

    Attributes:
        source: Folder or hub id with the text encoder's config and tokenizer.
        layers: As in `TextEncoderConfig`.
        max_tokens: Longer texts are cut.
        objective: The objective whose joint space images and texts share, by its key, and its settings.
    """

    source: str
    layers: tuple[int, ...]
    max_tokens: int
    objective: dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A model in use.

    Attributes:
        image_encoder: timm's name, patch size and depth; None for the name's own.
        image_size: Side of the square input in pixels.
        mean: Images are normalised with it, per channel in units of 0 to 1.
        std: Likewise.
        bridge: Depth and heads.
        texts: None for a model that was trained without texts.
        recipe: How photographs were prepared for training, and so must be for use.
        recipe_known: Whether that is recorded; the default recipe otherwise.
    """

    image_encoder: str
    image_size: int
    patch_size: int | None = None
    depth: int | None = None
    mean: tuple[float, ...] = IMAGE_MEAN
    std: tuple[float, ...] = IMAGE_STD
    bridge: BridgeConfig = field(default_factory=lambda: BridgeConfig(depth=0))
    texts: Texts | None = None
    recipe: Recipe = field(default_factory=Recipe)
    recipe_known: bool = False

    def encoder_config(self) -> ImageEncoderConfig:
        """Return the config that builds the image encoder, without weights."""
        return ImageEncoderConfig(name=self.image_encoder, patch_size=self.patch_size, depth=self.depth)

    def plain(self) -> dict[str, Any]:
        """Return it as it is written to an exported folder's config.json."""
        return {"format": FORMAT, **asdict(self)}


def architecture_of_plain(plain: dict[str, Any], source: str, text_folder: str | None) -> Architecture:
    """Read what `Architecture.plain` wrote.

    Args:
        plain: The content of a config.json; keys that are not ours are left alone.
        source: The file, for the message.
        text_folder: Where the text encoder's config and tokenizer are; None takes the place that was written.

    Raises:
        UserError: It is of another kind, or damaged.
    """
    if plain.get("format") != FORMAT:
        raise UserError(
            f"{source} says format={plain.get('format')!r}, not {FORMAT!r}.\n"
            "Give a run folder, or a folder that `python -m maskedclip_composer export` wrote with --to hf."
        )
    try:
        known = {name: plain[name] for name in (f.name for f in fields(Architecture)) if name in plain}
        texts = known["texts"]
        if texts is not None:
            where = {"source": text_folder or texts["source"], "layers": tuple(texts["layers"])}
            known["texts"] = Texts(**(texts | where))
        for name in ("mean", "std"):
            known[name] = tuple(known[name])
        known |= {"bridge": BridgeConfig(**known["bridge"]), "recipe": Recipe(**known["recipe"])}
        return Architecture(**known)
    except (KeyError, TypeError) as error:
        raise UserError(f"{source} is damaged: {error!r}.\nExport the model again.") from error


def architecture_of_run(folder: Path, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Architecture:
    """Read a run's config; the two-tower objective that comes first gives the joint space.

    Args:
        folder: The run's.
        mean: What its images were normalised with.
        std: Likewise.
    """
    config = load_config(TrainConfig, str(folder / "config.yaml"), [])
    two_towers = {key: value for key, value in config.objectives.present().items() if value.is_two_tower}
    texts = None
    if two_towers:
        key, objective = next(iter(two_towers.items()))
        kept = folder / FOLDER
        texts = Texts(
            # The run's own copy: the other name may be relative to where training was started, or have changed since.
            source=str(kept) if kept.is_dir() else config.text_encoder.name,
            layers=tuple(config.text_encoder.layers),
            max_tokens=config.data.max_tokens,
            objective={key: asdict(objective)},
        )
    recipe, recipe_known = recipe_of_run(folder)
    return Architecture(
        image_encoder=config.image_encoder.name,
        image_size=config.data.image_size,
        patch_size=config.image_encoder.patch_size,
        depth=config.image_encoder.depth,
        mean=mean,
        std=std,
        bridge=config.bridge,
        texts=texts,
        recipe=recipe,
        recipe_known=recipe_known,
    )


def objective_config(texts: Texts) -> ObjectiveConfig:
    """Return the config of the objective with the joint space.

    Raises:
        UserError: It is none that this version knows, or has other settings.
    """
    (key, settings), *_ = texts.objective.items()
    try:
        kind = next(kind for kind in get_args(get_type_hints(ObjectivesConfig)[key]) if kind is not type(None))
        config = kind(**settings)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"The model's joint space is that of objective {key} with {settings}, which this version does not know "
            f"({error}).\nUse the version of maskedclip_composer that wrote it."
        ) from error
    return config


def recipe_of_run(folder: Path) -> tuple[Recipe, bool]:
    """Read how the photographs of a run were prepared, and tell whether that is recorded.

    It is the default, with a warning, where nothing says, and that of the paired stream, with a warning, where the
    streams were prepared differently.
    """
    told = {path.parent.name: recipe_of_report(path) for path in sorted((folder / "data").glob(f"*/{REPORT}"))}
    recipes = {stream: recipe for stream, recipe in told.items() if recipe is not None}
    if not recipes:
        log.warning("%s does not say how its photographs were prepared: %s is taken", folder, Recipe())
        return Recipe(), False
    recipe = next(iter(recipes.values()))
    if len(set(recipes.values())) > 1:
        differing = "; ".join(f"{stream}: {recipe}" for stream, recipe in recipes.items())
        log.warning("%s has streams that were prepared differently (%s): %s is taken", folder, differing, recipe)
    return recipe, True
