from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_prep.manifest import Row
from data_prep.readers.catalogue import DATASETS
from data_prep.readers.dataset import Division
from data_prep.readers.division import divide
from data_prep.readers.read import Reading
from maskedclip_composer.data.records import join_labels
from maskedclip_composer.errors import UserError

PARTS = {"train", "val", "test"}


def reading_of(root, photographs):
    """Rows of (class, patient, official split, content) in this order."""
    rows = []
    for number, (_, patient, split, content) in enumerate(photographs):
        (root / f"{number:04}.jpg").write_text(str(content))
        rows.append(Row(number=number, image=f"{number:04}.jpg", patient=patient, split=split, dataset="toy"))
    codes = [str(label) for label, *_ in photographs]
    return Reading(kind="labelled", rows=rows, codes=codes, left_out=[], notes=[])


def parts(reading):
    return {row.image: row.split for row in reading.rows}


def sizes(photographs, division, tmp_path, seed=17):
    reading = divide(reading_of(tmp_path, photographs), tmp_path, division, seed)
    counts = defaultdict(Counter)
    for row, code in zip(reading.rows, reading.codes, strict=True):
        counts[row.split][code] += 1
    return counts, reading


# Few contents: many photographs are byte-identical.
photographs = st.lists(
    st.tuples(st.integers(0, 3), st.sampled_from(["", *"abcdefgh"]), st.just(""), st.integers(0, 60)),
    min_size=1,
    max_size=60,
)


@settings(deadline=None, max_examples=60)
@given(photographs, st.integers(0, 4), st.sampled_from([Division(), Division(test=0.2), Division(test=0, val=0.5)]))
def test_patients_and_twins_stay_together_and_the_order_does_not_matter(drawn, seed, division):
    with TemporaryDirectory() as folder:
        root = Path(folder)
        reading = reading_of(root, drawn)
        found = parts(divide(reading, root, division, seed))
        assert len(found) == len(drawn)
        together = defaultdict(set)
        for row, (_, patient, _, content) in zip(reading.rows, drawn, strict=True):
            together["content", content].add(found[row.image])
            together["patient", patient or row.image].add(found[row.image])
        assert all(len(names) == 1 for names in together.values())
        copies = Counter(content for *_, content in drawn)
        for row, (*_, content) in zip(reading.rows, drawn, strict=True):
            assert copies[content] == 1 or found[row.image] == "train"
        backwards = Reading(kind="labelled", rows=reading.rows[::-1], codes=reading.codes[::-1], left_out=[], notes=[])
        assert parts(divide(backwards, root, division, seed)) == found


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(0, 4))
@example([1, 1, 1, 1, 5], 0)  # what the four cannot give is not taken from the fifth
def test_every_class_is_in_every_part(numbers, seed):
    drawn = [(label, "", "", f"{label} {n}") for label, number in enumerate(numbers) for n in range(number)]
    with TemporaryDirectory() as folder:
        counts, reading = sizes(drawn, Division(), Path(folder), seed)
    for label, number in enumerate(numbers):
        having = {name for name in PARTS if counts[name][str(label)]}
        assert having == (PARTS if number >= 3 else {"train", "test"} if number == 2 else {"train"})
        # Largest remainders move a class by less than one from its share, unless it is kept in a part.
        assert abs(counts["test"][str(label)] - 0.3 * number) < 1 or counts["test"][str(label)] <= 1
    warned = any(note.startswith("WARNING: val has no photograph") for note in reading.notes)
    assert warned == (min(numbers) < 3)


labels_of_one = st.frozensets(st.sampled_from("DGAO"))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(labels_of_one, st.sampled_from(["", *"abcdefghijkl"])), min_size=1, max_size=60),
    st.integers(0, 4),
)
@example([(frozenset("DO"), ""), (frozenset("GO"), ""), (frozenset("DG"), "")], 0)
def test_several_labels_patients_whole_and_every_label_in_training(drawn, seed):
    with TemporaryDirectory() as folder:
        root = Path(folder)
        made = [(join_labels(labels), patient, "", n) for n, (labels, patient) in enumerate(drawn)]
        reading = replace(reading_of(root, made), kind="multilabel")
        found = divide(reading, root, Division(), seed)
    of_patient = defaultdict(set)
    having = defaultdict(set)
    units = defaultdict(set)
    for row, labels in zip(found.rows, found.labels, strict=True):
        of_patient[row.patient or row.image].add(row.split)
        for label in labels:
            having[label].add(row.split)
            units[label].add(row.patient or row.image)
    assert all(len(splits) == 1 for splits in of_patient.values())
    assert {label for labels, _ in drawn for label in labels} == set(having)
    assert all("train" in splits for splits in having.values())
    absent = {label for label, splits in having.items() if "test" not in splits}
    said = "".join(note for note in found.notes if note.startswith("WARNING: test has no"))
    assert all(f"{label} (" in said for label in absent)
    rarest = min(units, key=lambda label: (len(units[label]), label), default=None)
    assert rarest is None or len(units[rarest]) < 3 or having[rarest] == PARTS


def test_classes_that_share_their_patients_are_in_every_part(tmp_path):
    """The common class is only in patients that have a rarer one too."""
    drawn = [(label, f"{n}", "", f"{n} {label}") for n in range(9) for label in (0, 1 + n % 3)]
    counts, _ = sizes(drawn, Division(), tmp_path)
    assert all(set(counts[name]) == {"0", "1", "2", "3"} for name in PARTS)


@pytest.mark.parametrize(
    ("name", "classes", "expected"),
    [
        ("aptos2019", (1805, 370, 999, 193, 295), (2050, 513, 1099)),
        ("messidor2", (1017, 270, 347, 75, 35), (977, 244, 523)),
        ("glaucoma-fundus", (788, 289, 467), (865, 216, 463)),
        ("retina", (300, 100, 101, 100), (337, 84, 180)),
        ("jsiec", (50, *[27] * 30, *[17] * 8, 4), (560, 140, 300)),
        ("papila", (332, 87, 69), (312, 78, 98)),
    ],
)
def test_sizes_of_the_defaults(tmp_path, name, classes, expected):
    drawn = [(f"{label:02}", "", "", f"{label} {n}") for label, number in enumerate(classes) for n in range(number)]
    counts, _ = sizes(drawn, DATASETS[name].division, tmp_path)
    assert tuple(counts[part].total() for part in ("train", "val", "test")) == expected
    for label, number in enumerate(classes):
        assert abs(counts["test"][f"{label:02}"] - DATASETS[name].division.test * number) <= 1


def test_shares_count_photographs_of_whole_patients(tmp_path):
    drawn = [(n % 2, f"p{n}", "", f"{n} {eye}") for n in range(100) for eye in "lr"]
    counts, _ = sizes(drawn, Division(test=0.2), tmp_path)
    assert {name: dict(of_part) for name, of_part in counts.items()} == {
        "train": {"0": 64, "1": 64},
        "val": {"0": 16, "1": 16},
        "test": {"0": 20, "1": 20},
    }


def test_shares_between_whole_patients_go_to_the_nearest(tmp_path):
    """13 of 60 photographs of each class are wanted, six at a time."""
    drawn = [(n % 2, f"p{n}", "", f"{n} {view}") for n in range(20) for view in range(6)]
    counts, _ = sizes(drawn, Division(test=0.22, val=0), tmp_path)
    assert counts["test"] == {"0": 12, "1": 12}


def test_a_patient_with_a_copy_of_another_stays_in_training_with_both(tmp_path):
    drawn = [(n % 2, f"p{n // 2}", "", 0 if n in (4, 20) else n) for n in range(40)]
    for seed in range(5):
        _, reading = sizes(drawn, Division(), tmp_path, seed)
        assert {parts(reading)[f"{n:04}.jpg"] for n in (0, 1, 4, 5, 20, 21)} == {"train"}


@pytest.mark.parametrize(
    ("official", "words"),
    [
        (("train", "test"), "official train, test, val 20% of what test leaves, drawn with seed 17"),
        (("train", "val"), "official train, val, test 30% of the photographs, drawn with seed 17"),
        (("train", "val", "test"), "official train, val, test"),
        (("val", "test"), "official val, test"),
    ],
)
def test_official_parts_stay_as_they_are(tmp_path, official, words):
    drawn = [(n % 2, "", official[n % len(official)], n) for n in range(60)]
    reading = reading_of(tmp_path, drawn)
    found = divide(reading, tmp_path, Division(), 17)
    for before, after in zip(reading.rows, found.rows, strict=True):
        assert before.split == after.split or before.split == "train"
    assert {row.split for row in found.rows} == (PARTS if "train" in official else {"val", "test"})
    assert any(note.startswith(f"division: {words}") for note in found.notes)


def test_an_official_split_through_patients_is_said(tmp_path):
    drawn = [(n % 2, f"p{n % 7}", "test" if n > 20 else "train", n) for n in range(28)]
    _, reading = sizes(drawn, Division(val=0), tmp_path)
    assert "WARNING: the official split has 7 patients in several parts, such as p0" in reading.notes


def test_photographs_of_an_official_test_set_leave_training(tmp_path):
    drawn = [(n % 2, "", "test" if n > 29 else "", n % 31) for n in range(40)]
    _, reading = sizes(drawn, Division(), tmp_path)
    assert reading.left_out == [(f"{n:04}.jpg", f"is byte-identical to {31 + n:04}.jpg") for n in range(9)]


@pytest.mark.parametrize("shares", [{"val": 1.0}, {"test": -0.1}, {"val": float("nan")}])
def test_shares_out_of_range(shares):
    with pytest.raises(UserError, match="give a share between 0 and 1"):
        Division(**shares)
