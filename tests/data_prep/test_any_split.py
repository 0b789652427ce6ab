"""Divisions and label fractions of any set: patients whole, shares kept, the same whatever order the rows come in."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from data_prep.manifest import Row
from data_prep.readers.dataset import Division
from data_prep.readers.division import PARTS, divide
from data_prep.readers.read import Reading
from maskedclip_composer.data.subsets import FRACTIONS, shots, smallest_fractions, subset

MANY = settings(deadline=None, max_examples=50)
MOST, CONTENTS = 40, 60


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder of each content: file n in it has that content."""
    folder = tmp_path_factory.mktemp("files")
    for content in range(CONTENTS):
        (folder / str(content)).mkdir()
        (folder / str(content) / "original").write_bytes(b"x" * (content % 5) + str(content).encode())
        for number in range(MOST):
            (folder / str(content) / f"{number}.jpg").hardlink_to(folder / str(content) / "original")
    return folder


@st.composite
def sets(draw, multilabel: bool = False) -> Reading:
    """Some photographs of few patients and classes, a few byte-identical to others."""
    count = draw(st.integers(3, MOST))
    patients = draw(
        st.lists(st.sampled_from(["", "a", "b", "c", *map(str, range(12))]), min_size=count, max_size=count)
    )
    code = st.lists(st.sampled_from("xyz"), max_size=3, unique=True).map(lambda labels: "|".join(sorted(labels)))
    codes = draw(st.lists(code if multilabel else st.sampled_from("uvw"), min_size=count, max_size=count))
    contents = draw(st.lists(st.integers(0, CONTENTS - 1), min_size=count, max_size=count))
    rows = [
        Row(number=number + 1, image=f"{content}/{number}.jpg", patient=patient)
        for number, (content, patient) in enumerate(zip(contents, patients, strict=True))
    ]
    kind = "multilabel" if multilabel else "labelled"
    return Reading(kind=kind, rows=rows, codes=codes, left_out=[], notes=[])


def shuffled(reading: Reading, seed: int) -> Reading:
    order = random.Random(seed).sample(range(len(reading.rows)), len(reading.rows))
    rows, codes = [reading.rows[n] for n in order], [reading.codes[n] for n in order]
    return Reading(kind=reading.kind, rows=rows, codes=codes, left_out=[], notes=[])


@MANY
@given(
    reading=sets() | sets(multilabel=True),
    test=st.sampled_from([0.0, 0.2, 0.3, 0.5]),
    val=st.sampled_from([0.0, 0.2, 0.5]),
    seed=st.integers(0, 99),
)
def test_a_division_keeps_patients_whole_loses_nothing_and_does_not_depend_on_the_order(root, reading, test, val, seed):
    division = Division(test=test, val=val)
    divided = divide(reading, root, division, seed)
    parts = {row.image: row.split for row in divided.rows}
    assert parts.keys() == {row.image for row in reading.rows}
    assert set(parts.values()) <= {"train", *(["test"] if test else []), *(["val"] if val else [])} <= set(PARTS)
    of_patient: dict[str, set[str]] = {}
    of_content: dict[str, set[str]] = {}
    for row in divided.rows:
        of_content.setdefault(row.image.split("/")[0], set()).add(row.split)
        if row.patient:
            of_patient.setdefault(row.patient, set()).add(row.split)
    assert all(len(found) == 1 for found in of_patient.values())
    assert all(len(found) == 1 for found in of_content.values())  # of a photograph that is there twice too
    again = divide(shuffled(reading, seed), root, division, seed)
    assert {row.image: row.split for row in again.rows} == parts


@MANY
@given(count=st.integers(30, MOST), test=st.sampled_from([0.2, 0.3, 0.5]), seed=st.integers(0, 99))
def test_shares_are_kept_to_a_photograph_a_class_where_nothing_stands_against_it(root, count, test, seed):
    rows = [Row(number=n + 1, image=f"{n}/{n}.jpg") for n in range(count)]
    reading = Reading(kind="labelled", rows=rows, codes=["uv"[n % 2] for n in range(count)], left_out=[], notes=[])
    divided = divide(reading, root, Division(test=test, val=0.0), seed)
    assert abs(sum(row.split == "test" for row in divided.rows) - test * count) <= 1
    of_class = Counter(code for row, code in zip(divided.rows, divided.codes, strict=True) if row.split == "test")
    for code, size in Counter(reading.codes).items():
        assert abs(of_class[code] - test * size) <= 1


@MANY
@given(reading=sets(), official=st.data(), seed=st.integers(0, 99))
def test_no_photograph_of_an_official_test_set_is_trained_on(root, reading, official, seed):
    count = len(reading.rows)
    names = official.draw(st.lists(st.sampled_from(["train", "test"]), min_size=count, max_size=count))
    assume("test" in names)  # or one is drawn
    rows = [
        Row(number=row.number, image=row.image, patient=row.patient, split=name)
        for row, name in zip(reading.rows, names, strict=True)
    ]
    given_set = Reading(kind="labelled", rows=rows, codes=reading.codes, left_out=[], notes=[])
    divided = divide(given_set, root, Division(), seed)
    content = {row.image: row.image.split("/")[0] for row in rows}
    tested = {content[row.image] for row in rows if row.split == "test"}
    assert {row.image for row in divided.rows if row.split == "test"} == {r.image for r in rows if r.split == "test"}
    assert not {content[row.image] for row in divided.rows if row.split != "test"} & tested
    assert len(divided.rows) + len(divided.left_out) == len(rows)


@MANY
@given(reading=sets(), seed=st.integers(0, 99))
def test_label_fractions_are_nested_whole_by_patient_and_do_not_depend_on_the_order(reading, seed):
    def drawn(given_set: Reading) -> dict[str, float]:
        names = [row.image for row in given_set.rows]
        found = smallest_fractions(targets(given_set), seed, names=names, patients=[r.patient for r in given_set.rows])
        return dict(zip(names, found.tolist(), strict=True))

    def targets(given_set: Reading) -> np.ndarray:
        return np.array(["uvw".index(code) for code in given_set.codes])

    smallest = drawn(reading)
    assert set(smallest.values()) <= set(FRACTIONS)
    assert drawn(shuffled(reading, seed)) == smallest
    for patient in {row.patient for row in reading.rows} - {""}:
        assert len({smallest[row.image] for row in reading.rows if row.patient == patient}) == 1
    names, patients = [row.image for row in reading.rows], [row.patient for row in reading.rows]
    for fraction in FRACTIONS:
        chosen = {names[n] for n in subset(targets(reading), fraction, seed, names=names, patients=patients)}
        assert chosen == {name for name, least in smallest.items() if least <= fraction}  # nested
        assert {code for row, code in zip(reading.rows, reading.codes, strict=True) if row.image in chosen} == set(
            reading.codes
        )


@MANY
@given(reading=sets(), k=st.integers(1, 9), seed=st.integers(0, 99))
def test_shots_are_exact_of_every_class(reading, k, seed):
    targets = np.array(["uvw".index(code) for code in reading.codes])
    names, patients = [row.image for row in reading.rows], [row.patient for row in reading.rows]
    chosen = shots(targets, k, seed, names=names, patients=patients)
    assert Counter(targets[chosen].tolist()) == {c: min(k, n) for c, n in Counter(targets.tolist()).items()}
    assert set(chosen) <= set(shots(targets, k + 1, seed, names=names, patients=patients))
