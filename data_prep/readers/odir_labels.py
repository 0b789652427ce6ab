"""ODIR-5K's eight labels from the diagnostic keywords of one eye.

Source: the rules of ODIR-2019 (https://odir2019.grand-challenge.org) name the eight labels; that a keyword belongs to
one of them, and every other keyword about the retina to O, was read off the training annotations: made so, the labels
of both eyes of all 674 patients at hand are those of the sheet's columns N to O, which are true of the patient.
"""

from collections.abc import Iterable

from data_prep.readers.vocabulary import GLAUCOMA, NORMAL

NORMAL_CODE, OTHER_CODE = "N", "O"
ODIR_LABELS = {
    NORMAL_CODE: NORMAL,
    "D": "diabetic retinopathy",
    "G": GLAUCOMA,
    "C": "cataract",
    "A": "age-related macular degeneration",
    "H": "hypertensive retinopathy",
    "M": "pathological myopia",
    OTHER_CODE: "other retinal disease",
}

_PHRASES = (
    ("normal fundus", NORMAL_CODE),
    ("diabetic retinopathy", "D"),
    # Nonproliferative too, which most keywords write without the word diabetic.
    ("proliferative retinopathy", "D"),
    ("glaucoma", "G"),
    ("cataract", "C"),
    ("age-related macular degeneration", "A"),
    ("hypertensive retinopathy", "H"),
    ("pathological myopia", "M"),
    ("myopia retinopathy", "M"),
    ("myopic maculopathy", "M"),
    ("myopic retinopathy", "M"),
)
"""The code of a keyword by a phrase in it, so that suspected diseases, dry and wet ones and degrees are with theirs."""


def odir_labels(keywords: Iterable[str]) -> tuple[str, ...]:
    """Return the codes of an eye, in the order of the sheet; N only where nothing else is said.

    Args:
        keywords: About its retina, in lower case; those about the photograph taken out.
    """
    found = {_code(keyword) for keyword in keywords}
    if found != {NORMAL_CODE}:
        found.discard(NORMAL_CODE)
    return tuple(code for code in ODIR_LABELS if code in found)


def _code(keyword: str) -> str:
    return next((code for phrase, code in _PHRASES if phrase in keyword), OTHER_CODE)
