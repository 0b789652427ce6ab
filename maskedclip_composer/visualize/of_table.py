"""Pictures of features that `embed` has written: both spaces, without a photograph being read again."""

from pathlib import Path

import numpy as np
import pyarrow.parquet

from maskedclip_composer.errors import UserError
from maskedclip_composer.use.embedder import FEATURES, IMAGE_FEATURES, describe
from maskedclip_composer.use.embedding_table import EMBEDDED, KEY, OWN, read_about
from maskedclip_composer.use.load import load
from maskedclip_composer.use.options import device_of
from maskedclip_composer.visualize.columns import check_column, marked, patients
from maskedclip_composer.visualize.files import Result
from maskedclip_composer.visualize.options import Options
from maskedclip_composer.visualize.spaces import Points, Texts, draw_spaces
from maskedclip_composer.visualize.texts import texts_of_points

_ONLY = "a table of features has no photographs in it"


def is_features(photos: str) -> bool:
    """Return whether `photos` is a table that `embed` wrote."""
    path = Path(photos)
    if path.suffix.lower() != ".parquet" or not path.is_file():
        return False
    try:
        return KEY in (pyarrow.parquet.read_schema(path).metadata or {})
    except (OSError, pyarrow.ArrowException):  # a damaged table of photographs, whose reader will say so
        return False


def draw_table(options: Options) -> Result:
    """Draw the spaces of a table of features.

    Raises:
        UserError: It was made without the masked space or of another model, photographs are needed, or a column is
            missing.
    """
    others = [kind for kind in options.kinds if kind != "spaces"]
    if others:
        raise UserError(f"--kinds {others[0]}: {_ONLY}.\nGive the photographs, or --kinds spaces.")
    path = Path(options.photos)
    about = read_about(path)
    table = pyarrow.parquet.read_table(path)
    if FEATURES not in table.column_names:
        raise UserError(f"{path} has no column {FEATURES}.\nEmbed the photographs again, without --space clip.")
    carried = [name for name in table.column_names if name not in OWN]
    for flag, name in (("--labels", options.labels), ("--sets", options.sets)):
        check_column(flag, name, carried, options.photos)
    embedded = np.flatnonzero(np.array(table["status"].to_pylist()) == EMBEDDED)
    order = np.random.default_rng(options.seed).permutation(len(embedded))[: options.points]
    chosen = table.take(embedded[np.sort(order)])
    rows = chosen.select(carried).to_pylist() if carried else [{}] * len(chosen)
    points = Points(
        masked=_matrix(chosen, FEATURES),
        clip=_matrix(chosen, IMAGE_FEATURES) if IMAGE_FEATURES in table.column_names else None,
        labels=marked(rows, options.labels),
        sets=marked(rows, options.sets),
        patients=patients(rows),
        texts=_texts(options, about, rows) if IMAGE_FEATURES in table.column_names else None,
    )
    source = str(about.get("model", ""))
    name = Path(source).name or path.stem
    return Result(
        title=f"Pictures of {name}",
        facts={"Model": source, "Features": f"{path}: {len(embedded)}, of which {len(chosen)} are drawn"},
        drawn=[draw_spaces(points, title=f"{name}: feature spaces", seed=options.seed)],
        left_out={},
    )


def _matrix(table: pyarrow.Table, name: str) -> np.ndarray:
    return np.stack(table[name].to_numpy(zero_copy_only=False)).astype(np.float32)


def _texts(options: Options, about: dict, rows: list[dict[str, str]]) -> Texts | None:
    """Return the texts of the photographs or of --text; none without a model to encode them."""
    if options.model is None:
        if options.texts:
            raise UserError("--text: texts have to be encoded by the model.\nGive it as --model.")
        return None
    model, transform, tokenizer = load(options.model, device=device_of(options.device))
    own = describe(model, transform, tokenizer)
    if any(own[key] != about.get(key) for key in ("model_sha256", "tokenizer_sha256")):
        raise UserError(
            f"--model {options.model} is not the model that {options.photos} was made with ({about.get('model')}).\n"
            "Give that one, or embed the photographs again."
        )
    return texts_of_points(model, tokenizer, rows, options.texts)
