"""Which photographs are drawn, and the features of those that both spaces are compared on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from maskedclip_composer.errors import UserError
from maskedclip_composer.use.dual_tower import DualTower
from maskedclip_composer.use.one_photograph import Photograph, Photographs
from maskedclip_composer.use.photographs import batches
from maskedclip_composer.use.transform import PhotographTransform
from maskedclip_composer.visualize.drawn import Shown, wrapped

_NAME = 30  # characters beside a photograph
# So many are read to draw one: labels shall differ, and some may be unreadable.
_CANDIDATES = 8


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Photographs that were read, in the order of the collection.

    Attributes:
        photographs: Those that can be read.
        unreadable: Names of the others, and why.
        shown: The few that are drawn.
        masked: Features of the masked space of all of them; None where they are not asked for.
        clip: Of the CLIP space; None where the model has none, too.
    """

    photographs: list[Photograph]
    unreadable: list[tuple[str, str]]
    shown: Shown
    masked: Float[np.ndarray, "images dim"] | None = None
    clip: Float[np.ndarray, "images width"] | None = None


class Chosen:
    """Some of a collection of photographs, as a collection."""

    def __init__(self, photographs: Photographs, indices: Sequence[int]):
        self._photographs, self._indices = photographs, indices
        self.columns, self.fingerprint = photographs.columns, photographs.fingerprint

    def __len__(self) -> int:
        return len(self._indices)

    def read(
        self, index: int, transform: PhotographTransform
    ) -> tuple[Photograph, UInt8[Tensor, "3 size size"] | None]:
        """Return a photograph and the model's input; see `Photographs`."""
        return self._photographs.read(self._indices[index], transform)

    def picture(self, index: int, transform: PhotographTransform) -> UInt8[np.ndarray, "height width 3"] | str:
        """Return the prepared photograph to look at; see `Photographs`."""
        return self._photographs.picture(self._indices[index], transform)


def read_sample(
    photographs: Photographs,
    model: DualTower,
    transform: PhotographTransform,
    *,
    count: int,
    points: int | None,
    label: str | None,
    seed: int,
    batch_size: int = 64,
    workers: int = 0,
) -> Sample:
    """Read a sample of photographs, and encode it.

    Args:
        photographs: The collection.
        model: Encodes them.
        transform: The model's.
        count: Photographs that are drawn, of as many labels as there are.
        points: Photographs that both spaces are compared on; None leaves features out.
        label: Name of the column with labels.
        seed: Of the draw.
        batch_size: Photographs of a forward pass.
        workers: Processes that read photographs.

    Raises:
        UserError: Not one photograph can be read.
    """
    order = np.random.default_rng(seed).permutation(len(photographs))
    indices = sorted(order[: max(count, points or _CANDIDATES * count)].tolist())
    read: list[tuple[int, Photograph]] = []
    unreadable, masked, clip = [], [], []
    for batch in batches(
        Chosen(photographs, indices), transform, batch_size=batch_size, workers=workers, device=model.device
    ):
        for photograph in batch.photographs:
            index = indices[len(read) + len(unreadable)]
            if photograph.reason:
                unreadable.append((photograph.name, photograph.reason))
            else:
                read.append((index, photograph))
        if points is None or not len(batch.images):
            continue
        if model.has_texts:
            both = model.encode_both(batch.images)
            masked.append(both[0].cpu())
            clip.append(both[1].cpu())
        else:
            masked.append(model.encode_features(batch.images).cpu())
    if not read:
        name, reason = unreadable[0]
        raise UserError(f"None of {len(unreadable)} photographs can be read; {name}: {reason}.")
    place = {index: rank for rank, index in enumerate(order.tolist())}
    labels = [photograph.columns.get(label, "") if label else "" for _, photograph in read]
    drawn = spread([place[index] for index, _ in read], labels, count)
    images = [photographs.read(read[row][0], transform)[1] for row in drawn]
    return Sample(
        photographs=[photograph for _, photograph in read],
        unreadable=unreadable,
        shown=Shown(
            torch.stack([image for image in images if image is not None]),
            [row_name(read[row][1].name, labels[row]) for row in drawn],
        ),
        masked=torch.cat(masked).numpy() if masked else None,
        clip=torch.cat(clip).numpy() if clip else None,
    )


def spread(places: Sequence[int], labels: Sequence[str], count: int) -> list[int]:
    """Choose `count` rows of as many labels as possible, those of the first places; return them in order."""
    seen: Counter[str] = Counter()
    ranked = []
    for row in sorted(range(len(places)), key=lambda row: places[row]):
        ranked.append((seen[labels[row]], places[row], row))
        seen[labels[row]] += 1
    return sorted(row for _, _, row in sorted(ranked)[:count])


def row_name(name: str, label: str) -> str:
    """Return what stands beside a photograph: the end of its name, and its label below."""
    short = name.rpartition("/")[2]
    short = short if len(short) <= _NAME else f"…{short[1 - _NAME :]}"
    return f"{short}\n{wrapped(label, _NAME, 2)}" if label else short
