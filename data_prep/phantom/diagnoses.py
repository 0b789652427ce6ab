"""Diagnoses: which lesions each one brings, how often it occurs, and how a reader would word it."""

from dataclasses import dataclass

import numpy as np

from data_prep.phantom.anatomy import Eye
from data_prep.phantom.lesions import LOOKS, Kind, Lesions, Place


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """One category.

    Attributes:
        weight: Share among the eyes of a pre-training set, up to a common factor.
        phrases: Ways to write the diagnosis; every one is true of every eye that has it.
        lesions: (kind, fewest, most, place); fewest may be 0.
        cup: Range of the cup-to-disc ratio where it is not the healthy one.
        haze: Range of the haze of the media where it is not the usual one.
    """

    weight: float
    phrases: tuple[str, ...]
    lesions: tuple[tuple[Kind, int, int, Place], ...] = ()
    cup: tuple[float, float] | None = None
    haze: tuple[float, float] | None = None


NORMAL = "normal fundus"
MILD = "mild nonproliferative diabetic retinopathy"
MODERATE = "moderate nonproliferative diabetic retinopathy"
SEVERE = "severe nonproliferative diabetic retinopathy"
PROLIFERATIVE = "proliferative diabetic retinopathy"
GLAUCOMA = "glaucoma"
MACULAR_DEGENERATION = "dry age-related macular degeneration"
VEIN_OCCLUSION = "branch retinal vein occlusion"
CATARACT = "cataract"

# The counts follow the International Clinical Diabetic Retinopathy scale: microaneurysms only, more than these, many
# haemorrhages in every quadrant, new vessels.
DIAGNOSES: dict[str, Diagnosis] = {
    NORMAL: Diagnosis(
        weight=0.36,
        phrases=(
            "normal fundus",
            "no abnormality detected",
            "healthy retina, no sign of disease",
            "unremarkable fundus",
        ),
    ),
    MILD: Diagnosis(
        weight=0.09,
        phrases=(
            "mild nonproliferative diabetic retinopathy",
            "mild non proliferative retinopathy",
            "early diabetic retinopathy with microaneurysms only",
            "mild NPDR",
        ),
        lesions=(("microaneurysms", 4, 9, "posterior pole"),),
    ),
    MODERATE: Diagnosis(
        weight=0.14,
        phrases=(
            "moderate nonproliferative diabetic retinopathy",
            "moderate non proliferative diabetic retinopathy",
            "moderate NPDR",
            "diabetic retinopathy, moderate stage without new vessels",
        ),
        lesions=(
            ("microaneurysms", 8, 18, "posterior pole"),
            ("dot haemorrhages", 3, 9, "posterior pole"),
            ("hard exudates", 1, 4, "macula"),
            ("cotton wool spots", 0, 1, "arcades"),
        ),
    ),
    SEVERE: Diagnosis(
        weight=0.08,
        phrases=(
            "severe nonproliferative diabetic retinopathy",
            "severe non proliferative retinopathy",
            "severe NPDR with haemorrhages in all quadrants",
            "advanced background diabetic retinopathy",
        ),
        lesions=(
            ("microaneurysms", 12, 26, "posterior pole"),
            ("dot haemorrhages", 8, 18, "posterior pole"),
            ("blot haemorrhages", 10, 20, "posterior pole"),
            ("hard exudates", 0, 4, "macula"),
            ("cotton wool spots", 2, 5, "arcades"),
        ),
    ),
    PROLIFERATIVE: Diagnosis(
        weight=0.05,
        phrases=(
            "proliferative diabetic retinopathy",
            "PDR with new vessels",
            "diabetic retinopathy with neovascularisation",
        ),
        lesions=(
            ("microaneurysms", 8, 20, "posterior pole"),
            ("dot haemorrhages", 4, 12, "posterior pole"),
            ("blot haemorrhages", 3, 9, "posterior pole"),
            ("hard exudates", 0, 3, "macula"),
            ("cotton wool spots", 0, 3, "arcades"),
            ("neovascularisation", 1, 3, "disc"),
            ("preretinal haemorrhage", 0, 1, "arcades"),
        ),
    ),
    GLAUCOMA: Diagnosis(
        weight=0.09,
        phrases=(
            "glaucoma",
            "glaucomatous optic disc",
            "enlarged optic cup with thinning of the neuroretinal rim",
            "increased cup to disc ratio, suspected glaucoma",
        ),
        cup=(0.66, 0.84),
    ),
    MACULAR_DEGENERATION: Diagnosis(
        weight=0.09,
        phrases=(
            "dry age-related macular degeneration",
            "age related macular degeneration with drusen",
            "macular drusen",
            "early dry AMD",
        ),
        lesions=(("drusen", 28, 70, "macula"),),
    ),
    VEIN_OCCLUSION: Diagnosis(
        weight=0.04,
        phrases=("branch retinal vein occlusion", "BRVO", "occlusion of a branch of the retinal vein"),
        lesions=(
            ("flame haemorrhages", 22, 45, "sector"),
            ("blot haemorrhages", 3, 8, "sector"),
            ("cotton wool spots", 0, 3, "sector"),
        ),
    ),
    CATARACT: Diagnosis(
        weight=0.06,
        phrases=("cataract", "refractive media opacity", "hazy view of the fundus due to lens opacity"),
        haze=(0.38, 0.72),
    ),
}

_AMOUNTS = ((1, "a single"), (5, "a few"), (15, "several"), (10**6, "numerous"))
_SINGULAR: dict[Kind, str] = {
    "microaneurysms": "microaneurysm",
    "dot haemorrhages": "dot haemorrhage",
    "blot haemorrhages": "blot haemorrhage",
    "flame haemorrhages": "flame haemorrhage",
    "cotton wool spots": "cotton wool spot",
    "drusen": "druse",
}


def describe_lesions(lesions: Lesions, eye: Eye) -> str:
    """Word what was drawn: amount, kind and place, all taken from the geometry."""
    if lesions.kind == "neovascularisation":
        return "neovascularisation of the disc"
    place = locate(lesions.centres, eye)
    if lesions.kind == "preretinal haemorrhage":
        return f"preretinal haemorrhage {place}"
    if LOOKS[lesions.kind].cluster[1] > 1:
        return f"{'a cluster' if lesions.count == 1 else 'clusters'} of {lesions.kind} {place}"
    amount = next(word for most, word in _AMOUNTS if lesions.count <= most)
    return f"{amount} {_SINGULAR[lesions.kind] if lesions.count == 1 else lesions.kind} {place}"


def locate(points: np.ndarray, eye: Eye) -> str:
    """Name the part of the fundus that holds at least four fifths of `points` [n, 2]."""
    if np.mean(is_macular(points, eye)) >= 0.8:
        return "near the macula"
    offset = points - np.array(eye.fovea)
    below, nasal = np.mean(offset[:, 1] > 0), np.mean(offset[:, 0] > 0)
    vertical = "inferior" if below >= 0.8 else "superior" if below <= 0.2 else ""
    horizontal = "nasal" if nasal >= 0.8 else "temporal" if nasal <= 0.2 else ""
    if vertical and horizontal:
        return f"in the {vertical} {horizontal} quadrant"
    if vertical or horizontal:
        return f"in the {vertical or horizontal} retina"
    return "scattered over the posterior pole"


def is_macular(points: np.ndarray, eye: Eye) -> np.ndarray:
    """Whether each of `points` [n, 2] lies near the macula, bool [n]."""
    offset = points - np.array(eye.fovea)
    return np.hypot(offset[:, 0], offset[:, 1]) < 0.42


def describe(names: list[str], lesions: list[Lesions], eye: Eye, rng: np.random.Generator) -> list[tuple[str, str]]:
    """Texts of an eye with the category of each: (text, name of the diagnosis).

    Every diagnosis gets two of its phrases, one of them with the eye's side, and where it brings lesions a list of
    findings and a sentence.

    Args:
        names: Diagnoses of the eye.
        lesions: All that was drawn.
        eye: Gives the side and the places.
        rng: Picks the wordings.
    """
    texts: list[tuple[str, str]] = []
    for name in names:
        diagnosis = DIAGNOSES[name]
        phrases = rng.permutation(diagnosis.phrases).tolist()
        written = [phrases[0], f"{eye.side} eye, {phrases[1]}"]
        kinds = {kind for kind, *_ in diagnosis.lesions}
        findings = [describe_lesions(item, eye) for item in lesions if item.kind in kinds]
        if findings:
            written.append(", ".join(findings))
            written.append(f"Fundus photograph of the {eye.side} eye with {enumerate_words(findings)}: {name}.")
        elif name == NORMAL:
            written.append("Clear optic disc margin, normal vessels and macula, no haemorrhages or exudates.")
        elif diagnosis.cup:
            written.append(f"Fundus photograph with a large cup to disc ratio of about {eye.cup:.1f}.")
        texts += [(text, name) for text in written]
    return texts


def enumerate_words(items: list[str]) -> str:
    """Join "a", "b" and "c" to "a, b and c"."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
