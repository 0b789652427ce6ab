import errno
import hashlib
import re
import shutil
import tracemalloc
from unittest.mock import Mock

import numpy as np
import pytest
from streaming import MDSWriter

from maskedclip_composer.data.source import Source
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.data import load_labelled
from maskedclip_composer.evaluation.kinds import Amount
from maskedclip_composer.evaluation.photographs import MdsPhotographs
from tests.evaluation.conftest import LABELS, SEVERAL, SIZES, photograph, write_mds


@pytest.fixture
def folders(tmp_path):
    """ImageFolder with two images per class and split."""
    rng = np.random.default_rng(1)
    for split in SIZES:
        for label in LABELS:
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            for index in range(2):
                (folder / f"{index}.png").write_bytes(photograph(label, rng))
    return tmp_path


def test_mds_has_each_record_once_and_numbers_sort_by_value(mds):
    data = load_labelled(str(mds))
    assert data.classes == ("1", "2", "10")
    assert {split.name: len(split) for split in (data.train, data.val, data.test)} == SIZES
    written = [LABELS[index % 3] for index in range(SIZES["test"])]
    assert [data.classes[target] for target in data.test.targets] == written
    assert len({data.test.photographs.image(index) for index in range(SIZES["test"])}) == SIZES["test"]
    assert "20.png" in data.test.photographs.describe(20)


def test_opening_a_split_does_not_hold_its_photographs(tmp_path):
    size, number = 1_000_000, 24
    write_mds(tmp_path / "train", [LABELS[index % 3] for index in range(number)], [bytes(size)] * number)
    tracemalloc.start()
    try:
        photographs = MdsPhotographs(tmp_path / "train")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * size
    assert len(photographs.image(number - 1)) == size
    assert photographs.labels[:3] == [(label,) for label in LABELS]


def test_image_folder(folders):
    data = load_labelled(str(folders))
    assert data.classes == ("1", "2", "10")
    assert data.val.targets.tolist() == [0, 0, 2, 2, 1, 1]  # folders in the order 1, 10, 2
    assert data.val.photographs.image(2) == (folders / "val" / "10" / "0.png").read_bytes()


def test_compressed_shards_are_unpacked_into_the_cache_alone(tmp_path):
    rng = np.random.default_rng(2)
    images = [photograph(label, rng) for label in LABELS]
    for split in SIZES:
        write_mds(tmp_path / "set" / split, list(LABELS), images, compression="zstd")
    before = sorted((tmp_path / "set").rglob("*"))
    with pytest.raises(UserError, match="data_cache"):
        load_labelled(str(tmp_path / "set"))
    data = load_labelled(str(tmp_path / "set"), cache=str(tmp_path / "cache"))
    assert [data.test.photographs.image(index) for index in range(3)] == images
    assert sorted((tmp_path / "set").rglob("*")) == before


def test_a_url_needs_a_cache_and_a_failing_one_is_said(tmp_path):
    with pytest.raises(UserError, match="data_cache"):
        load_labelled("s3://bucket/set")
    with pytest.raises(UserError, match=r"data = gopher://host/set/train: "):
        load_labelled("gopher://host/set", cache=str(tmp_path / "cache"))


def test_a_set_that_cannot_be_fetched_is_told_with_the_keys_of_an_evaluation(tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    for split in SIZES:
        write_mds(
            tmp_path / "set" / split, list(LABELS), [photograph(label, rng) for label in LABELS], compression="zstd"
        )
    next((tmp_path / "set" / "train").glob("*.mds.zstd")).write_bytes(b"x")
    monkeypatch.setattr("maskedclip_composer.data.source.wait_before", lambda retry: 0.0)
    said = []
    for cause in (None, TimeoutError("slow"), OSError(errno.ENOSPC, "full")):
        if cause is not None:
            monkeypatch.setattr(Source, "download", Mock(side_effect=cause))
        with pytest.raises(UserError) as caught:
            load_labelled(str(tmp_path / "set"), cache=str(tmp_path / "cache"))
        said.append(str(caught.value))
    assert "Checksum failure: 1 bytes in place of" in said[0]
    assert "move data_cache" in said[2]
    for message in said:
        assert message.startswith(f"{tmp_path / 'set' / 'train'}: ")
        assert message.endswith("then start again")
        assert not re.search(r"data\.|\.local|to resume|UserError", message)


def test_missing_split(folders):
    shutil.rmtree(folders / "val")
    with pytest.raises(UserError, match=r"no folder 'val' \(it has: test, train\)"):
        load_labelled(str(folders))


def test_a_class_that_train_lacks_stays_and_is_told(folders):
    shutil.rmtree(folders / "train" / "10")
    data = load_labelled(str(folders))
    assert data.classes == ("1", "2", "10")
    assert data.trained.tolist() == [True, True, False]
    assert data.test.targets.tolist() == [0, 0, 2, 2, 1, 1]


def test_a_split_that_tells_only_untrained_classes_apart(folders):
    """Train knows 1, 2 and test has 1, 10: of the two, 1 is defined and trained. With 10 and 3 none is."""
    shutil.rmtree(folders / "train" / "10")
    shutil.rmtree(folders / "test" / "2")
    assert load_labelled(str(folders)).test.defined.tolist() == [True, False, True]
    (folders / "test" / "1").rename(folders / "test" / "3")
    with pytest.raises(UserError, match="no label that train has is true of some photographs of test and false of"):
        load_labelled(str(folders))


def test_a_class_may_be_absent_from_val_and_test(folders):
    for split in ("val", "test"):
        shutil.rmtree(folders / split / "2")
    assert load_labelled(str(folders)).val.targets.tolist() == [0, 0, 2, 2]


def test_single_class(folders):
    for split in SIZES:
        shutil.rmtree(folders / split / "1")
        shutil.rmtree(folders / split / "2")
    with pytest.raises(UserError, match="single class '10'"):
        load_labelled(str(folders))


def test_single_class_in_test(folders):
    shutil.rmtree(folders / "test" / "1")
    shutil.rmtree(folders / "test" / "2")
    with pytest.raises(UserError, match="all photographs of test have one label"):
        load_labelled(str(folders))


def test_single_class_in_train(folders):
    shutil.rmtree(folders / "train" / "1")
    shutil.rmtree(folders / "train" / "2")
    with pytest.raises(UserError, match="all photographs of train have one label"):
        load_labelled(str(folders))


def test_a_missing_shard_is_named(mds, tmp_path):
    shutil.copytree(mds, tmp_path / "set")
    next((tmp_path / "set" / "val").glob("*.mds")).unlink()
    with pytest.raises(UserError, match=r"shard of index\.json is missing"):
        load_labelled(str(tmp_path / "set"))


def test_records_without_labels_are_refused(mds, tmp_path):
    shutil.copytree(mds, tmp_path / "set")
    shutil.rmtree(tmp_path / "set" / "val")
    with MDSWriter(out=str(tmp_path / "set" / "val"), columns={"image": "bytes"}) as writer:
        writer.write({"image": b""})
    with pytest.raises(UserError, match="val holds no labelled records: its columns are image"):
        load_labelled(str(tmp_path / "set"))


def test_label_fractions_keep_patients_whole(tmp_path):
    """Two photographs of each patient, in another order than that of the patients."""
    labels = [LABELS[index % 3] for index in range(60)]
    for split in SIZES:
        write_mds(tmp_path / split, labels, [b"x"] * 60, patients=[str(index % 30) for index in range(60)])
    train = load_labelled(str(tmp_path)).train
    assert train.photographs.patients[31] == "toy/1"
    rows = train.draw(Amount(fraction=0.2), seed=3)
    assert len(rows) == 12
    assert sorted(rows[:6] + 30) == sorted(rows[6:])
    assert train.draw(Amount(fraction=1.0), seed=3).tolist() == list(range(60))
    assert train.draw(Amount(), seed=3).tolist() == []


def test_shots_take_other_patients(tmp_path):
    labels = [LABELS[index % 3] for index in range(60)]
    for split in SIZES:
        write_mds(tmp_path / split, labels, [b"x"] * 60, patients=[str(index % 30) for index in range(60)])
    train = load_labelled(str(tmp_path)).train
    rows = train.draw(Amount(shots=5), seed=3)
    assert np.bincount(train.targets[rows]).tolist() == [5, 5, 5]
    assert len({train.photographs.patients[row] for row in rows}) == 15
    assert set(train.draw(Amount(shots=1), seed=3)) < set(rows)


def test_label_fractions_of_folders(folders):
    train = load_labelled(str(folders)).train
    assert train.photographs.names[2] == "10/0.png"
    assert sorted(train.targets[train.draw(Amount(fraction=0.1), seed=0)]) == [0, 1, 2]


def test_several_labels_a_photograph(multilabel_mds):
    data = load_labelled(str(multilabel_mds), kind="multilabel", names={"D": "diabetic retinopathy"})
    assert (data.kind, data.classes) == ("multilabel", ("D", "G", "N"))
    assert data.names == ("diabetic retinopathy", "G", "N")
    assert data.test.one_hot[:4].tolist() == [
        [True, False, False],
        [False, True, False],
        [True, True, False],
        [False, False, True],
    ]
    assert data.test.photographs.labels == [SEVERAL[index % 4] for index in range(SIZES["test"])]
    with pytest.raises(ValueError, match="use one_hot"):
        _ = data.test.targets
    rows = data.train.draw(Amount(fraction=0.25), seed=0)
    assert {row ^ 1 for row in rows} == set(rows)  # both photographs of each patient
    rows = data.train.draw(Amount(shots=2), seed=0)
    assert (data.train.one_hot[rows].sum(axis=0) >= 2).all()
    assert len(rows) <= 6


def test_the_splits_are_what_their_folders_say(mds):
    """EyeCLIP's code calls the larger part of what it holds out val, RETFound's calls it test."""
    data = load_labelled(str(mds))
    for name in SIZES:
        split = getattr(data, name)
        assert (split.name, len(split)) == (name, SIZES[name])
        assert split.photographs.describe(0).startswith(str(mds / name))


def test_hashes_are_those_of_the_records_and_files(mds, folders):
    photographs = load_labelled(str(mds)).val.photographs
    assert photographs.hashes == [hashlib.sha256(photographs.image(index)).hexdigest() for index in range(SIZES["val"])]
    files = load_labelled(str(folders)).val.photographs
    assert files.hashes == [hashlib.sha256(files.image(index)).hexdigest() for index in range(6)]


def test_grades_have_the_order_of_their_values_or_a_given_one(folders):
    assert load_labelled(str(folders), kind="ordinal").classes == ("1", "2", "10")
    for split in SIZES:
        for old, new in (("1", "mild"), ("2", "moderate"), ("10", "severe")):
            (folders / split / old).rename(folders / split / new)
    with pytest.raises(UserError, match=r"grades mild, moderate, severe, which are no whole numbers\.\nGive classes="):
        load_labelled(str(folders), kind="ordinal")
    given = ["severe", "moderate", "mild"]
    data = load_labelled(str(folders), kind="ordinal", classes=given)
    assert data.classes == tuple(given)
    assert data.test.targets.tolist() == [2, 2, 1, 1, 0, 0]


def test_given_classes_are_a_closed_list(folders):
    data = load_labelled(str(folders), classes=["10", "2", "1", "0"])
    assert data.classes == ("10", "2", "1", "0")
    assert data.trained.tolist() == [True, True, True, False]
    with pytest.raises(UserError, match=r"train/10/0\.png has the label '10', which is not one of classes=\[1, 2\]"):
        load_labelled(str(folders), classes=["1", "2"])
    with pytest.raises(UserError, match="classes has '2' twice"):
        load_labelled(str(folders), classes=["1", "2", "10", "2"])
    with pytest.raises(UserError, match=r"names has '3', but .* has the classes 1, 2, 10"):
        load_labelled(str(folders), names={"3": "severe"})


def test_kind_and_records_must_fit(mds, multilabel_mds, folders):
    with pytest.raises(UserError, match=r"no labelled records.*\n.*kind=multilabel"):
        load_labelled(str(multilabel_mds))
    with pytest.raises(UserError, match=r"no multilabel records.*\n.*kind=nominal or kind=ordinal"):
        load_labelled(str(mds), kind="multilabel")
    with pytest.raises(UserError, match=r"a photograph there has one label, not several.\n.*--kind multilabel"):
        load_labelled(str(folders), kind="multilabel")


def test_paired_records_are_no_multilabel_ones(tmp_path):
    columns = {"image": "bytes", "texts": "json", "labels": "json"}
    with MDSWriter(out=str(tmp_path / "train"), columns=columns) as writer:
        writer.write({"image": b"", "texts": ["a"], "labels": ["a"]})
    with pytest.raises(UserError, match=r"no multilabel records: .*texts\.\nConvert the data set as kind `multilabel`"):
        MdsPhotographs(tmp_path / "train", "multilabel")


def test_labels_that_no_photograph_has_in_some_split(tmp_path):
    labels = {"train": [("D",), ("G",), ()], "val": [("D",), (), ()], "test": [("G",), ("G",), ("G",)]}
    for split, of_split in labels.items():
        write_mds(tmp_path / split, of_split, [b"x"] * 3)
    with pytest.raises(UserError, match="no label that train has is true of some photographs of test"):
        load_labelled(str(tmp_path), kind="multilabel")
