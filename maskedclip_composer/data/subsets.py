"""Parts of a training set: nested label fractions with patients whole, and k shots of every class.

The order of the draw comes from hashes of names, not from a generator of random numbers: it is the same whatever order
the images come in and whatever libraries are installed, and taking an image away leaves the order of the others.
"""

import hashlib
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

Targets = Int[np.ndarray, " images"] | Bool[np.ndarray, "images classes"]
"""Class of each image, or whether each label is true of it."""

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
    targets: Targets,
    fraction: float,
    seed: int,
    *,
    names: Sequence[str],
    patients: Sequence[str] | None = None,
) -> Int[np.ndarray, " chosen"]:
    """Draw the same share of every class, at least one image of each, patients whole.

    Subsets of one seed are nested: a larger fraction contains a smaller one. Where every patient has one image, a class
    of n gives max(1, round(fraction * n)); otherwise the patients whose images come closest, taken in the order of the
    draw, and more where patients of another class have images of this one too. Where images have several labels, every
    label gets its share so, and a frequent one more where it comes along with others; images without a label count as
    one label of their own.

    Args:
        targets: Class of each image, or whether each label is true of it.
        fraction: In (0, 1]; 1 returns all.
        seed: Of the order in which patients are taken.
        names: Of the images, each its own; folders that all begin with do not count.
        patients: Of the images, empty where unknown; None where all are.

    Returns:
        Indices in ascending order.
    """
    place = _places(seed, names, patients)
    one_hot = _one_hot(targets)
    one_hot = np.column_stack([one_hot, ~one_hot.any(axis=1)])
    counts = np.zeros((place.max(initial=-1) + 1, one_hot.shape[1]))
    np.add.at(counts, place, one_hot)
    return np.flatnonzero(_taken(counts, fraction)[place])


def shots(
    targets: Targets, k: int, seed: int, *, names: Sequence[str], patients: Sequence[str] | None = None
) -> Int[np.ndarray, " chosen"]:
    """Draw k images of every class, or all where a class has fewer.

    The draws of one seed are nested: a larger k holds a smaller one. The classes take turns, the rarest first, until
    each has k: the first image in the order of `subset` of a patient who gave the class the fewest so far, and of those
    one who gave the fewest altogether. So patients are not whole here, but none gives a class a second image before all
    have given one. Where images have one class the numbers are exact; where they have several, a class whose number
    others have filled does not take its turn, and frequent classes end above k. Images without a label are not drawn.

    Args:
        targets: Class of each image, or whether each label is true of it.
        k: At least 1.
        seed: Of the order of patients and images.
        names: Of the images, each its own; folders that all begin with do not count.
        patients: Of the images, empty where unknown; None where all are.

    Returns:
        Indices in ascending order.
    """
    one_hot = _one_hot(targets)
    place = _places(seed, names, patients)
    keys = [draw_key(seed, f"image {name}") for name in below_common_folder(names)]
    order = sorted(range(len(names)), key=lambda index: (place[index], keys[index]))
    rank = {index: number for number, index in enumerate(order)}
    having = [[index for index in order if one_hot[index, label]] for label in range(one_hot.shape[1])]
    # By size and draw, not by number: what a class is called, and so its number, must not change the draw.
    key = {label: (len(rows), [rank[index] for index in rows]) for label, rows in enumerate(having) if rows}
    turns = sorted(key, key=key.__getitem__)
    drawn: set[int] = set()
    given = np.zeros((place.max(initial=-1) + 1, one_hot.shape[1]), dtype=np.int64)  # by patient and class
    for wanted in range(1, k + 1):
        for label in turns:
            left = [index for index in having[label] if index not in drawn]
            if left and len(having[label]) - len(left) < wanted:
                # The first of those that compare equal.
                index = min(left, key=lambda i: (given[place[i], label], given[place[i]].sum()))
                drawn.add(index)
                given[place[index]] += one_hot[index]
    return np.array(sorted(drawn), dtype=np.int64)


def smallest_fractions(
    targets: Targets, seed: int, *, names: Sequence[str], patients: Sequence[str] | None = None
) -> Float[np.ndarray, " images"]:
    """Return for each image the smallest of `FRACTIONS` whose `subset` holds it; arguments as there."""
    smallest = np.ones(len(targets))
    for fraction in reversed(FRACTIONS):
        smallest[subset(targets, fraction, seed, names=names, patients=patients)] = fraction
    return smallest


def _one_hot(targets: Targets) -> Bool[np.ndarray, "images classes"]:
    if targets.ndim == 2:
        return targets
    classes, found = np.unique(targets, return_inverse=True)
    return found[:, None] == np.arange(len(classes))


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
