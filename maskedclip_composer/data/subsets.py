"""Label fractions: nested shares of a training set, some of every class, patients whole.

The order of the draw comes from hashes of names, not from a generator of random numbers: it is the same whatever order
the images come in and whatever libraries are installed, and taking an image away leaves the order of the others.
"""

import hashlib
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

FRACTIONS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)


def draw_key(seed: int, name: str) -> bytes:
    """Return the key to sort `name` by for a random order."""
    return hashlib.blake2b(f"{seed} {name}".encode(), digest_size=16).digest()


def below_common_folder(names: Sequence[str]) -> list[str]:
    """Take off the folders that all names begin with, so that names do not depend on where a root is set."""
    parts = [name.split("/") for name in names]
    depth = len(os.path.commonprefix([folders[:-1] for folders in parts]))
    return ["/".join(part[depth:]) for part in parts]


def patient_key(dataset: str, patient: str) -> str:
    """Tell the patients of several data sets apart; empty where the patient is unknown."""
    return f"{dataset}/{patient}" if patient else ""


def subset(
    targets: Int[np.ndarray, " images"],
    fraction: float,
    seed: int,
    *,
    names: Sequence[str],
    patients: Sequence[str] | None = None,
) -> Int[np.ndarray, " chosen"]:
    """Draw the same share of every class, at least one image of each, patients whole.

    Subsets of one seed are nested: a larger fraction contains a smaller one. Where every patient has one image, a class
    of n gives max(1, round(fraction * n)); otherwise the patients whose images come closest, taken in the order of the
    draw, and more where patients of another class have images of this one too.

    Args:
        targets: Class of each image.
        fraction: In (0, 1]; 1 returns all.
        seed: Of the order in which patients are taken.
        names: Of the images, each its own; folders that all begin with do not count.
        patients: Of the images, empty where unknown; None where all are.

    Returns:
        Indices in ascending order.
    """
    place = _places(seed, names, patients)
    _, classes = np.unique(targets, return_inverse=True)
    counts = np.zeros((place.max() + 1, classes.max() + 1))
    np.add.at(counts, (place, classes), 1)
    return np.flatnonzero(_taken(counts, fraction)[place])


def smallest_fractions(
    targets: Int[np.ndarray, " images"], seed: int, *, names: Sequence[str], patients: Sequence[str] | None = None
) -> Float[np.ndarray, " images"]:
    """Return for each image the smallest of `FRACTIONS` whose `subset` holds it; arguments as there."""
    smallest = np.ones(len(targets))
    for fraction in reversed(FRACTIONS):
        smallest[subset(targets, fraction, seed, names=names, patients=patients)] = fraction
    return smallest


def _places(seed: int, names: Sequence[str], patients: Sequence[str] | None) -> Int[np.ndarray, " images"]:
    """Return for each image the place of its patient, or of itself where nobody is known, in the order of the draw."""
    known = patients or [""] * len(names)
    keys = [
        f"patient {patient}" if patient else f"image {name}"
        for name, patient in zip(below_common_folder(names), known, strict=True)
    ]
    order = {key: place for place, key in enumerate(sorted(set(keys), key=lambda key: draw_key(seed, key)))}
    return np.array([order[key] for key in keys], dtype=np.int64)


def _taken(counts: Float[np.ndarray, "groups classes"], fraction: float) -> Int[np.ndarray, " groups"]:
    """Whether each group is taken: whether it brings a class nearer to its number than the groups before it do.

    What is before a group does not depend on the fraction and the number grows with it: hence the nesting.
    """
    before = np.cumsum(counts, axis=0) - counts
    number = np.maximum(1, np.floor(fraction * counts.sum(axis=0) + 0.5))
    wanted = (before == 0) | (before + counts / 2 < number)
    return ((counts > 0) & wanted).any(axis=1)
