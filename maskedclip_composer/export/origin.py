"""Which published or earlier weights a run started from, kept in the run's folder."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from maskedclip_composer.errors import UserError

ORIGIN_FILE = "origin.json"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where an image encoder, and other parts of the network, started.

    Attributes:
        source: As `image_encoder.weights` names it.
        description: What the reader of the weights says of them, for example that positions were resampled.
        sha256: Of all weights as they were read; see `evaluation/encoders/fingerprint.py`.
        mean: What images are normalised with from then on, per channel in units of 0 to 1.
        std: Likewise.
        parts: SHA-256 of every other part that started from `source` (`from_weights`), by name.
        fresh: The parts that did not: they started as without `image_encoder.weights`.
    """

    source: str
    description: str
    sha256: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    parts: dict[str, str] = field(default_factory=dict)
    fresh: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """Return the record as it is written and logged."""
        return asdict(self)


def read_origin(run_folder: Path) -> Origin | None:
    """Read the record of a run; None where it has none.

    Raises:
        UserError: The file is damaged.
    """
    path = run_folder / ORIGIN_FILE
    if not path.is_file():
        return None
    try:
        plain = json.loads(path.read_text())
        given = {key: tuple(plain[key]) for key in ("mean", "std", "fresh") if key in plain}
        return Origin(**(plain | given))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path} is damaged: {error!r}.\nRemove it: the run then reads its image_encoder.weights again."
        ) from error
