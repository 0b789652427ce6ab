"""The three public data sets that MaskedCLIP pairs with texts: from grades, or from keywords per eye (ODIR-5K)."""

import re
from typing import Any

from data_prep.readers.dataset import Cell, Dataset, Entry, Part, Sheet, Target
from data_prep.readers.odir_labels import ODIR_LABELS, odir_labels
from data_prep.readers.texts import finding
from data_prep.readers.vocabulary import GLAUCOMA, NO_GLAUCOMA, RETINOPATHY
from maskedclip_composer.data.cells import cell_text

EYEPACS = Dataset(
    name="eyepacs",
    title="EyePACS (Kaggle Diabetic Retinopathy Detection)",
    role="paired",
    kind="paired",
    task="diabetic retinopathy, grades 0-4",
    source="https://www.kaggle.com/c/diabetic-retinopathy-detection",
    licence="competition rules",
    terms="research use as the competition's rules say, no redistribution",
    citation="EyePACS and Kaggle, 2015; Cuadros and Bresnick, 2009",
    count=35126,
    parts=(
        Part(
            images=("train",),
            example="<n>_<left|right>.jpeg",
            sheets=(Sheet(paths=("trainLabels.csv",), image=("image",)),),
            pattern=r"(?P<patient>\d+)_(?P<eye>left|right)",
        ),
    ),
    targets={"grade": Target(classes=RETINOPATHY, columns=("level",))},
    traps=("some photographs are inverted, dark or blank",),
)

AIROGS = Dataset(
    name="airogs",
    title="AIROGS (Rotterdam EyePACS)",
    role="paired",
    kind="paired",
    task="referable glaucoma",
    source="https://zenodo.org/records/5793241",
    licence="CC BY-NC-ND 4.0 (check at the source)",
    terms="non-commercial, no derivatives to be shared",
    citation="de Vente et al., 2023, IEEE Transactions on Medical Imaging",
    count=101442,
    parts=(
        Part(
            images=(".",),
            example="<0-5>/TRAIN<nnnnnn>.jpg",
            sheets=(Sheet(paths=("train_labels.csv",), image=("challenge_id",)),),
            pattern=r"TRAIN\d+",
        ),
    ),
    targets={
        "glaucoma": Target(
            classes={"NRG": NO_GLAUCOMA, "RG": GLAUCOMA}, columns=("class",), counts={"NRG": 98172, "RG": 3270}
        )
    },
    traps=("31 to 1: almost every pair of a batch is of one class",),
)

UNUSABLE = frozenset(
    {
        "low image quality",
        "lens dust",
        "image offset",
        "no fundus image",
        "anterior segment image",
        "optic disk photographically invisible",
    }
)
"""Keywords about the photograph, not about the retina that it shows."""


def split_keywords(cell: Any) -> list[str]:
    """Split a keyword cell at full-width commas and, where a row was typed so, ASCII ones; lower case, each once."""
    keywords = (cell_text(part).lower() for part in re.split("[\uff0c,]", cell_text(cell)))
    return list(dict.fromkeys(keyword for keyword in keywords if keyword))


def _both_eyes(cell: Cell, columns: tuple[str, ...]) -> list[Entry]:
    # The columns N to O are not read: they are true of the patient, not of the eye.
    return [_eye(cell, eye, cell_text(cell(f"{eye}-Fundus"))) for eye in ("Left", "Right")]


def _one_eye(cell: Cell, columns: tuple[str, ...]) -> list[Entry]:
    """Read a row of full_df.csv: it repeats what is true of both eyes, `filename` tells which one it means."""
    name = cell_text(cell("filename"))
    return [_eye(cell, "Left" if "left" in name.lower() else "Right", name)]


def _eye(cell: Cell, eye: str, image: str) -> Entry:
    keywords = split_keywords(cell(f"{eye}-Diagnostic Keywords"))
    texts = [keyword for keyword in keywords if keyword not in UNUSABLE]
    reason = "" if texts else f"keywords only say: {', '.join(keywords)}" if keywords else "no keywords"
    return Entry(
        image=image,
        patient=cell_text(cell("ID")),
        eye=eye.lower(),
        labels=odir_labels(texts),
        texts=tuple(finding(text) for text in texts),
        left_out=reason,
    )


ODIR5K = Dataset(
    name="odir5k",
    title="ODIR-5K",
    role="paired",
    kind="paired",
    task="diagnostic keywords of each eye",
    source="https://odir2019.grand-challenge.org (https://www.kaggle.com/datasets/andrewmvd/ocular-disease-recognition-odir5k)",
    licence="none stated",
    terms="challenge data, research use; do not redistribute",
    citation="Peking University International Competition on Ocular Disease Intelligent Recognition, 2019",
    count=7000,
    parts=(
        Part(
            # Kaggle's preprocessed_images hold the same names again, already cropped, and some of the test set.
            images=(
                "Training Images",
                "ODIR-5K_Training_Dataset",
                "ODIR-5K_Training_Images",
                "preprocessed_images",
            ),
            example="<ID>_<left|right>.jpg",
            sheets=(
                Sheet(paths=("ODIR-5K_Training_Annotations*.xlsx", "data.xlsx"), entries=_both_eyes),
                Sheet(paths=("full_df.csv",), entries=_one_eye),
            ),
            pattern=r"^(?P<patient>\d+)_(?P<eye>left|right)",
        ),
    ),
    # Only on demand, with --kind multilabel: the pairs are made of the keywords themselves.
    targets={"disease": Target(classes=ODIR_LABELS, several=True)},
    traps=("ODIR200x3, a common test set, is part of it", "keywords about the photograph itself are no texts"),
)

DATASETS = (EYEPACS, AIROGS, ODIR5K)
