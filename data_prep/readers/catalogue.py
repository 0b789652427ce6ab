"""All data sets that `prepare` knows."""

import difflib

from data_prep.readers import (
    downstream,
    downstream_diseases,
    pretraining_glaucoma,
    pretraining_paired,
    pretraining_retinopathy,
    substitutes,
    substitutes_findings,
)
from data_prep.readers.dataset import Dataset
from maskedclip_composer.errors import UserError

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for group in (
        pretraining_paired,
        pretraining_retinopathy,
        pretraining_glaucoma,
        downstream,
        downstream_diseases,
        substitutes_findings,
        substitutes,
    )
    for dataset in group.DATASETS
}


def find(name: str) -> Dataset:
    """Return the data set of that name; raise UserError with the nearest one where there is none."""
    if name in DATASETS:
        return DATASETS[name]
    near = difflib.get_close_matches(name.lower(), DATASETS, n=1, cutoff=0.4)
    guess = f"do you mean {near[0]}? " if near else ""
    raise UserError(f"data set {name}: not known; {guess}`python -m data_prep list` shows all")
