"""Every known data set, from its official layout in small to shards, against what the fixture was written to say."""

from collections import Counter

import pytest

from data_prep.fixtures.command import FIXTURES, write
from data_prep.readers.catalogue import DATASETS
from data_prep.readers.read import read
from maskedclip_composer.errors import UserError
from tests.data_prep.drawing import run, samples

NO_DR, MILD, MODERATE, SEVERE, PROLIFERATIVE = (
    "no diabetic retinopathy",
    "mild non-proliferative diabetic retinopathy",
    "moderate non-proliferative diabetic retinopathy",
    "severe non-proliferative diabetic retinopathy",
    "proliferative diabetic retinopathy",
)


def rows(text):
    """Take one row a line: image | label | patient | eye | split, with - for nothing."""
    return [tuple("" if c == "-" else c for c in map(str.strip, line.split("|"))) for line in text.strip().splitlines()]


# What `--kind labelled` makes of the sets that have labels, rows in the order of sheet or folder.
LABELLED = {
    "eyepacs": """
        10_left.jpeg  | 0 | 10 | left  | -
        10_right.jpeg | 1 | 10 | right | -
        13_left.jpeg  | 2 | 13 | left  | -
        13_right.jpeg | 3 | 13 | right | -
        15_left.jpeg  | 4 | 15 | left  | -
        15_right.jpeg | 0 | 15 | right | -""",
    "airogs": "\n".join(
        f"TRAIN{n:06}.{'JPG' if n == 5 else 'jpg'} | {'RG' if n == 4 else 'NRG'} | - | - | -" for n in range(8)
    ),
    "paraguay": """
        1000.jpg | 1 | - | - | -
        1001.jpg | 1 | - | - | -
        2000.jpg | 2 | - | - | -
        3000.jpg | 3 | - | - | -
        3001.jpg | 3 | - | - | -
        4000.jpg | 4 | - | - | -
        4001.jpg | 4 | - | - | -
        5000.jpg | 4 | - | - | -
        5001.jpg | 4 | - | - | -
        6000.jpg | 6 | - | - | -
        6001.jpg | 6 | - | - | -
        7000.jpg | 6 | - | - | -
        7001.jpg | 6 | - | - | -""",
    "deepdrid": "\n".join(
        f"{patient}_{view}.jpg | {patient % 5 if view[0] == 'l' else 0} | {patient} | {eye} | {split}"
        for split, first in (("train", 1), ("val", 265))
        for patient in (first, first + 1)
        for view, eye in (("l1", "left"), ("l2", "left"), ("r1", "right"), ("r2", "right"))
    )
    + "\n347_l1.jpg | 2 | 347 | left | test\n347_r1.jpg | 0 | 347 | right | test",
    "drishti-gs": """
        drishtiGS_002.png | Normal       | - | - | train
        drishtiGS_004.png | Glaucomatous | - | - | train
        drishtiGS_001.png | Glaucomatous | - | - | test""",
    "acrima": """
        Im001_ACRIMA.jpg   | ACRIMA   | - | - | -
        Im002_ACRIMA.jpg   | ACRIMA   | - | - | -
        Im310_g_ACRIMA.jpg | g_ACRIMA | - | - | -""",
    "refuge": """
        g0001.jpg | 1 | - | - | train
        n0001.jpg | 0 | - | - | train
        n0002.jpg | 0 | - | - | train
        T0001.jpg | 1 | - | - | test
        T0002.jpg | 0 | - | - | test""",
    "lag": """
        2.jpg | non_glaucoma        | - | - | -
        3.jpg | non_glaucoma        | - | - | -
        1.jpg | suspicious_glaucoma | - | - | -""",
    "grape": """
        1_OD_1.jpg | OAG | 1 | right | -
        1_OD_2.jpg | OAG | 1 | right | -
        1_OS_1.jpg | OAG | 1 | left  | -
        2_OS_1.jpg | ACG | 2 | left  | -""",
    "chaksu": "\n".join(
        f"Image{n}.{suffix} | {label} | - | - | {split}"
        for split in ("train", "test")
        for suffix in ("JPG", "png", "JPG")
        for n, label in ((101, "NORMAL"), (102, "GLAUCOMA SUSPECT"))
    ),
    "hrf": """
        01_dr.JPG | dr | - | - | -
        01_g.jpg  | g  | - | - | -
        01_h.jpg  | h  | - | - | -
        02_h.jpg  | h  | - | - | -""",
    "sustech-sysu": """
        0001.jpg | 0 | - | left  | -
        0002.jpg | 2 | - | right | -
        0003.jpg | 4 | - | left  | -""",
    "fives": """
        1_A.png | A | - | - | train
        2_D.png | D | - | - | train
        3_G.png | G | - | - | train
        1_N.png | N | - | - | test
        2_A.png | A | - | - | test""",
    "aptos2019": "\n".join(f"000c1434d8{n:02x}.png | {n % 5} | - | - | -" for n in range(10)),
    "idrid": "\n".join(f"IDRiD_{n:03}.jpg | {n % 5} | - | - | train" for n in range(1, 31))
    + "\n"
    + "\n".join(f"IDRiD_{n:03}.jpg | {n % 5} | - | - | test" for n in range(1, 6)),
    "messidor2": """
        20051019_38557_0100_PP.png | 0 | 20051019_38557_0100_PP | left  | -
        20051020_43808_0100_PP.png | 2 | 20051019_38557_0100_PP | right | -
        IM000001.JPG               | 4 | IM000001               | left  | -""",
    "glaucoma-fundus": """
        1.png | advanced_glaucoma | - | - | -
        2.png | advanced_glaucoma | - | - | -
        1.png | early_glaucoma    | - | - | -
        1.png | normal_control    | - | - | -
        2.png | normal_control    | - | - | -
        3.png | normal_control    | - | - | -""",
    "origa": """
        001.jpg | 0 | - | right | train
        002.jpg | 1 | - | left  | test
        003.jpg | 1 | - | left  | train""",
    "jsiec": """
        1ffa9331.JPG  | 0.0.Normal                           | - | - | -
        1ffa9332..JPG | 0.0.Normal                           | - | - | -
        a.jpg         | 1.1.DR3                              | - | - | -
        b.JPG         | 10.0.Possible glaucoma               | - | - | -
        c.JPG         | 29.1.Blur fundus with suspected PDR  | - | - | -""",
    "retina": """
        NL_001.png       | 1_normal         | - | - | -
        NL_002.png       | 1_normal         | - | - | -
        cataract_001.png | 2_cataract       | - | - | -
        cataract_002.png | 2_cataract       | - | - | -
        Glaucoma_001.png | 2_glaucoma       | - | - | -
        Glaucoma_002.png | 2_glaucoma       | - | - | -
        Retina_001.png   | 3_retina_disease | - | - | -
        Retina_002.png   | 3_retina_disease | - | - | -""",
    "papila": """
        RET002OD.jpg | 0 | 002 | right | -
        RET004OD.jpg | 1 | 004 | right | -
        RET005OD.jpg | 2 | 005 | right | -
        RET002OS.jpg | 0 | 002 | left  | -
        RET004OS.jpg | 0 | 004 | left  | -
        RET005OS.jpg | 1 | 005 | left  | -""",
    "eyepacs-test": """
        1_left.jpeg  | 0 | 1 | left  | test
        1_right.jpeg | 2 | 1 | right | test
        3_left.jpeg  | 4 | 3 | left  | val""",
    "brset": """
        img00001.jpg | 0 | 1 | right | -
        img00002.jpg | 2 | 1 | left  | -
        img00003.jpg | 0 | 2 | right | -""",
    "ddr": """
        007-train-0.jpg | 0 | - | - | train
        007-train-1.jpg | 2 | - | - | train
        007-valid-0.jpg | 1 | - | - | val
        007-test-0.jpg  | 3 | - | - | test
        007-test-1.jpg  | 4 | - | - | test""",
    "rfmid": """
        1.png | 1 | - | - | train
        2.png | 0 | - | - | train
        1.png | 1 | - | - | val
        1.png | 1 | - | - | test""",
    "g1020": """
        image_0.jpg | 0 | - | - | -
        image_1.jpg | 1 | - | - | -
        image_3.jpg | 0 | - | - | -""",
    "class-folders": """
        9.jpg | Drusen | - | - | test
        4.jpg | Normal | - | - | test
        9.jpg | Drusen | - | - | train
        1.jpg | Normal | - | - | train
        2.png | Normal | - | - | train
        9.jpg | Drusen | - | - | val
        3.JPG | Normal | - | - | val""",
}

# Photographs without any label.
UNLABELLED = {
    "stare": "\n".join(f"im{n:04}.ppm | - | - | - | -" for n in range(1, 5)),
    "chase-db1": """
        Image_01L.jpg | - | 01 | left  | -
        Image_01R.jpg | - | 01 | right | -
        Image_02L.jpg | - | 02 | left  | -""",
    "les-av": "12.png | - | - | - | -\n224.png | - | - | - | -",
}

# What `--kind paired` makes of the sets with texts of their own, and of a few of those with labels.
TEXTS = {
    "odir5k": [
        ["normal fundus"],
        ["macular epiretinal membrane", "drusen"],
        ["hypertensive retinopathy", "diabetic retinopathy"],
        ["abnormal pigment", "drusen"],
    ],
    "eyepacs": [[NO_DR], [MILD], [MODERATE], [SEVERE], [PROLIFERATIVE], [NO_DR]],
    "airogs": [["glaucoma" if n == 4 else "no glaucoma"] for n in range(8)],
    "stare": [["Background Diabetic Retinopathy"], ['hypertensuve retinopathy OR "copper wire" arteries'], ["Normal"]],
    "deepeyenet": [
        ["81-year-old woman. Geographic atrophy of both eyes.", "Albinism, Pale Fundus"],
        ["Albinism, Pale Fundus"],
        ["Albinism with a pale fundus.", "Albinism, Pale Fundus"],
    ],
    "mm-retinal": [
        ['Macular hole, "full thickness", right eye'],
        ["Branch retinal vein occlusion; flame-shaped haemorrhages"],
    ],
    "brset": [["normal fundus"], ["diabetic retinopathy", "macular oedema"], [NO_DR]],
    "rfmid": [
        ["diabetic retinopathy", "central serous chorioretinopathy"],
        ["normal fundus"],
        ["media haze"],
        ["optic disc cupping", "tortuous vessels"],
    ],
    "jsiec": [
        ["normal fundus"],
        ["normal fundus"],
        [PROLIFERATIVE],
        ["suspected glaucoma"],
        ["blurred fundus with suspected proliferative diabetic retinopathy"],
    ],
    "sustech-sysu": [[NO_DR], [MODERATE], [PROLIFERATIVE]],
}

LEFT_OUT = {
    "odir5k": {
        "is not on disk": 1,
        "keywords only say: low image quality": 1,
        "no keywords": 1,
        "keywords only say: no fundus image, lens dust": 1,
    },
    "messidor2": {"has no label": 1},
    "ddr": {"is ungradable": 1},
    "sustech-sysu": {"shows laser spots or scars and has no other grade": 1},
}


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("releases")
    for name in FIXTURES:
        write(name, folder / name)
    return folder


def test_every_set_has_a_fixture_and_an_expectation():
    assert set(DATASETS) == set(FIXTURES) == set(LABELLED) | set(UNLABELLED) | set(TEXTS)


def described(row, label):
    return (row.image.rsplit("/")[-1], label, row.patient, row.eye, row.split)


@pytest.mark.parametrize("name", LABELLED)
def test_labels_patients_eyes_and_splits(releases, name):
    reading = read(DATASETS[name], releases / name, kind="labelled")
    found = [described(row, code) for row, code in zip(reading.rows, reading.codes, strict=True)]
    assert found == rows(LABELLED[name])
    assert [row.labels for row in reading.rows] == [(code,) for code in reading.codes]
    if name not in ("deepdrid", "refuge"):  # some of their photographs have no grade
        assert Counter(reason for _, reason in reading.left_out) == LEFT_OUT.get(name, {})


@pytest.mark.parametrize("name", UNLABELLED)
def test_photographs_without_labels(releases, name):
    reading = read(DATASETS[name], releases / name)
    assert [described(row, "") for row in reading.rows] == rows(UNLABELLED[name])
    assert (reading.kind, reading.left_out) == ("unpaired", [])


@pytest.mark.parametrize("name", TEXTS)
def test_texts(releases, name):
    reading = read(DATASETS[name], releases / name, kind="paired")
    assert [list(row.texts) for row in reading.rows] == TEXTS[name]
    for row in reading.rows:
        assert len(row.labels) == len(row.texts)
        assert all(row.labels)


def test_several_labels_of_each_eye(releases):
    """Not the sheet's N to O, which are the patient's (all 0 in the fixture), nor both eyes for each row."""
    reading = read(DATASETS["odir5k"], releases / "odir5k", "disease", "multilabel")
    found = {row.image.rsplit("/")[-1]: row.labels for row in reading.rows}
    assert found == {
        "0_left.jpg": ("N",),
        "0_right.jpg": ("O",),
        "1_left.jpg": ("D", "H"),
        "2_right.jpg": ("O",),
    }
    assert len(reading.rows) == len(found)
    assert reading.codes == ["N", "O", "D|H", "O"]
    assert Counter(reason for _, reason in reading.left_out) == {
        "keywords only say: low image quality": 1,
        "is not on disk": 1,
        "no keywords": 1,
        "keywords only say: no fundus image, lens dust": 1,
    }


@pytest.mark.parametrize(
    ("name", "target", "kind", "message"),
    [
        (
            "odir5k",
            "disease",
            "labelled",
            "odir5k has any number of labels a photograph there, which makes no labelled",
        ),
        ("odir5k", "disease", None, "makes no paired records; give --kind multilabel"),
        ("odir5k", None, "labelled", "odir5k has no labels of this kind, but disease; give --kind multilabel"),
        ("idrid", "grade", "multilabel", "idrid has one class a photograph there, which makes no multilabel records"),
        ("idrid", None, "multilabel", "idrid has no labels of this kind, but grade, dme; give --kind labelled"),
        ("chase-db1", None, "multilabel", "chase-db1 has no labels; leave --kind out"),
    ],
)
def test_targets_that_do_not_fit_the_kind(releases, name, target, kind, message):
    with pytest.raises(UserError, match=message):
        read(DATASETS[name], releases / name, target, kind)


def test_other_targets(releases):
    dme = read(DATASETS["idrid"], releases / "idrid", target="dme")
    assert dme.codes[:4] == ["1", "2", "0", "1"]
    aao = read(DATASETS["sustech-sysu"], releases / "sustech-sysu", target="aao")
    assert aao.codes == ["0", "1", "4"]
    assert read(DATASETS["messidor2"], releases / "messidor2", target="dme").codes == ["0", "1", "0"]


def test_unpaired_takes_what_has_no_label(releases):
    deepdrid = read(DATASETS["deepdrid"], releases / "deepdrid")
    assert [row.image.rsplit("/")[-1] for row, code in zip(deepdrid.rows, deepdrid.codes, strict=True) if not code] == [
        "1_l3.jpg"
    ]
    assert not any("ultra-widefield" in row.image for row in deepdrid.rows)
    refuge = read(DATASETS["refuge"], releases / "refuge")
    assert Counter(row.split for row in refuge.rows) == {"train": 3, "val": 2, "test": 2}


@pytest.mark.parametrize("name", DATASETS)
def test_becomes_shards(releases, tmp_path, name):
    arguments = ("--root", releases / name, "--out", tmp_path / "out", "--workers", "1", "--size", "64")
    assert run("prepare", name, *arguments) == 0
    reading = read(DATASETS[name], releases / name)
    stored = [s for index in sorted((tmp_path / "out").rglob("index.json")) for s in samples(index.parent)]
    expected = {row.image: row for row in reading.rows}
    leaked = 1 if name == "idrid" else 0
    assert len(stored) == len(expected) - leaked
    for sample in stored:
        row = expected[sample["source"]]
        split = row.split
        if reading.kind == "labelled" and split in ("", "train"):  # what is divided
            assert sample["split"] in ("train", "val", "test")
            split = sample["split"]
        assert (sample["dataset"], sample["split"], sample["patient"], sample["eye"]) == (
            name,
            split,
            row.patient,
            row.eye,
        )
        if reading.kind == "paired":
            assert (tuple(sample["texts"]), tuple(sample["labels"])) == (row.texts, row.labels)
        elif reading.kind == "labelled":
            assert (sample["label"],) == row.labels
        assert (sample["crop"]["status"] == "off") == DATASETS[name].cropped
    if reading.kind != "labelled":
        assert (tmp_path / "out" / "index.json").is_file()
