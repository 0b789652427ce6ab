"""`--patients FILE`: only the photographs of certain patients."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from data_prep.readers.read import Reading
from maskedclip_composer.errors import UserError


def only_patients(reading: Reading, path: Path) -> Reading:
    """Keep the rows of the patients that the text file at `path` names, one a line.

    Raises:
        UserError: The file cannot be read, names nobody, somebody twice, or somebody who has no photograph.
    """
    patients = _read(path)
    known = Counter(row.patient for row in reading.rows)
    if set(known) <= {""}:
        raise UserError(f"--patients {path}: the set does not say whose its photographs are; leave the option out")
    for number, patient in patients.items():
        if not known[patient]:
            example = next(name for name in known if name)
            raise UserError(
                f"--patients {path}: line {number}: the set has no {reading.kind} photograph of the patient "
                f"{patient!r}; take the line out, or write it as the set does, such as {example!r}"
            )
    chosen = set(patients.values())
    kept = [number for number, row in enumerate(reading.rows) if row.patient in chosen]
    rest = [row.image for row in reading.rows if row.patient not in chosen]
    return replace(
        reading,
        rows=[reading.rows[number] for number in kept],
        codes=[reading.codes[number] for number in kept],
        left_out=[*reading.left_out, *((image, f"patient is not in {path.name}") for image in rest)],
        notes=[*reading.notes, f"patients: the {len(chosen)} of {path.name}"],
    )


def _read(path: Path) -> dict[int, str]:
    """Return the patients by line; blank lines are passed over."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--patients {path}: cannot be read as text in UTF-8 ({error})") from error
    patients = {number: line.strip() for number, line in enumerate(lines, start=1) if line.strip()}
    if not patients:
        raise UserError(f"--patients {path}: names no patient; write one a line")
    repeated = next((name for name, count in Counter(patients.values()).items() if count > 1), None)
    if repeated is not None:
        raise UserError(f"--patients {path}: names {repeated!r} twice; take one of the lines out")
    return patients
