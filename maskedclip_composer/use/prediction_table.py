"""The table of predictions: one row a photograph, or one a patient."""

import dataclasses
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from jaxtyping import Float

from maskedclip_composer.callbacks.atomic import write_whole
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.classifier_file import ClassifierFacts
from maskedclip_composer.evaluation.metrics import THRESHOLD
from maskedclip_composer.use.csv_table import csv_text
from maskedclip_composer.use.embedding_table import KEY
from maskedclip_composer.use.one_photograph import Photograph

OK, UNREADABLE = "ok", "unreadable"
"""Of the Parquet table's metadata: the classifier's facts as JSON."""


@dataclass(frozen=True)
class Prediction:
    """A photograph, or a patient, and the probability of each class; None where it cannot be read."""

    photograph: Photograph
    probabilities: Float[np.ndarray, " classes"] | None


def check_columns(columns: Sequence[str], facts: ClassifierFacts, *, patients: bool) -> None:
    """Refuse a table whose columns are called as those of the predictions, or lack the patients that are asked for.

    Raises:
        UserError: Names the column.
    """
    taken = [name for name in columns if name in _own_columns(facts)]
    if taken:
        raise UserError(
            f"The column {taken[0]} of the photographs' table is also one of the predictions'.\n"
            "Rename it there, or take it out."
        )
    if patients and "patient" not in columns:
        has = ", ".join(columns) or "no columns"
        raise UserError(f"--patients: the photographs have no column patient; they have {has}.\nLeave --patients out.")


def predicted(probabilities: Float[np.ndarray, " classes"], facts: ClassifierFacts) -> list[int]:
    """Return the places of the predicted classes: the most probable one, or every label above the threshold."""
    if facts.kind == "multilabel":
        return np.flatnonzero(probabilities > THRESHOLD).tolist()
    return [int(np.argmax(probabilities))]


def of_patients(found: Sequence[Prediction]) -> list[Prediction]:
    """Average the probabilities of each patient's photographs; the same name in two data sets is two patients.

    Raises:
        UserError: A photograph has no patient.
    """
    groups: dict[tuple[str, str], list[Prediction]] = {}
    for one in found:
        columns = one.photograph.columns
        patient = columns.get("patient", "")
        # A record that its shard could not give has no columns at all.
        if not patient and not one.photograph.reason:
            raise UserError(
                f"--patients: {one.photograph.name} has no patient.\nFill the column, or leave --patients out."
            )
        if patient:
            groups.setdefault((columns.get("dataset", ""), patient), []).append(one)
    patients = []
    for (dataset, patient), members in groups.items():
        read = [one.probabilities for one in members if one.probabilities is not None]
        name = f"{dataset}/{patient}" if dataset else patient
        known = {"dataset": dataset, "patient": patient, "photographs": str(len(read))}
        reason = "" if read else "none of the photographs can be read"
        mean = np.mean(read, axis=0, dtype=np.float64).astype(np.float32) if read else None
        patients.append(Prediction(Photograph(name=name, columns=known, reason=reason), mean))
    return patients


def write_photographs(path: Path, found: Sequence[Prediction], columns: Sequence[str], facts: ClassifierFacts) -> None:
    """Write the predictions of photographs as CSV or Parquet, whole.

    Args:
        path: The table, by its suffix.
        found: Its rows.
        columns: What is carried along of each.
        facts: Of the classifier; a Parquet table has them in its metadata.
    """
    _write(path, found, ["image", *columns, *_own_columns(facts)], facts)


def write_patients(path: Path, found: Sequence[Prediction], facts: ClassifierFacts) -> None:
    """Write the predictions of patients (`of_patients`) likewise."""
    own = [name for name in _own_columns(facts) if name != "crop"]
    several = any(one.photograph.columns["dataset"] for one in found)
    _write(path, found, [*(["dataset"] if several else []), "patient", "photographs", *own], facts)


def _write(path: Path, found: Sequence[Prediction], names: list[str], facts: ClassifierFacts) -> None:
    rows = [_row(one, facts) for one in found]
    if path.suffix == ".csv":
        write_whole(path, csv_text(names, ([_cell(row.get(name)) for name in names] for row in rows)))
        return
    kinds = {name: pyarrow.float32() if name.startswith("probability_") else pyarrow.string() for name in names}
    metadata = {KEY: json.dumps(dataclasses.asdict(facts))}
    rows = [{name: "" for name in names if kinds[name] == pyarrow.string()} | row for row in rows]
    table = pyarrow.Table.from_pylist(rows, schema=pyarrow.schema(list(kinds.items()), metadata=metadata))
    content = io.BytesIO()
    pyarrow.parquet.write_table(table, content)
    write_whole(path, content.getvalue())


def _own_columns(facts: ClassifierFacts) -> list[str]:
    named = ["prediction_name"] if facts.names != facts.classes else []
    return ["prediction", *named, *(f"probability_{code}" for code in facts.classes), "status", "reason", "crop"]


def _row(one: Prediction, facts: ClassifierFacts) -> dict[str, Any]:
    photograph, probabilities = one.photograph, one.probabilities
    row: dict[str, Any] = dict(photograph.columns)
    row |= {"image": photograph.name, "reason": photograph.reason, "crop": photograph.crop}
    row["status"] = UNREADABLE if probabilities is None else OK
    places = [] if probabilities is None else predicted(probabilities, facts)
    row["prediction"] = "|".join(facts.classes[place] for place in places)
    row["prediction_name"] = "|".join(facts.names[place] for place in places)
    for place, code in enumerate(facts.classes):
        row[f"probability_{code}"] = None if probabilities is None else float(probabilities[place])
    return row


def _cell(value: Any) -> str | None:
    # Nine digits give every float32 back.
    return f"{value:.9g}" if isinstance(value, float) else value
