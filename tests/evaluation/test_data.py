import shutil
import tracemalloc

import numpy as np
import pytest
from streaming import MDSWriter

from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.data import MdsPhotographs, load_labelled
from maskedclip_composer.evaluation.loading import check_readable
from tests.evaluation.conftest import LABELS, SIZES, photograph, write_mds


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
    assert photographs.labels[:3] == list(LABELS)


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
    with pytest.raises(UserError, match="could not be read"):
        load_labelled("gopher://host/set", cache=str(tmp_path / "cache"))


def test_missing_split(folders):
    shutil.rmtree(folders / "val")
    with pytest.raises(UserError, match=r"no folder 'val' \(it has: test, train\)"):
        load_labelled(str(folders))


def test_class_absent_from_train(folders):
    shutil.rmtree(folders / "train" / "10")
    with pytest.raises(UserError, match="label '10'"):
        load_labelled(str(folders))


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


def test_every_unreadable_photograph_is_named(folders):
    (folders / "train" / "2" / "1.png").write_bytes(b"no picture")
    whole = (folders / "test" / "1" / "0.png").read_bytes()
    (folders / "test" / "1" / "0.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="2 photographs cannot be decoded") as caught:
        check_readable(load_labelled(str(folders)), 32, workers=0)
    assert "train/2/1.png" in str(caught.value)
    assert "test/1/0.png" in str(caught.value)


def test_label_fractions_keep_patients_whole(tmp_path):
    """Two photographs of each patient, in another order than that of the patients."""
    labels = [LABELS[index % 3] for index in range(60)]
    for split in SIZES:
        write_mds(tmp_path / split, labels, [b"x"] * 60, patients=[str(index % 30) for index in range(60)])
    train = load_labelled(str(tmp_path)).train
    assert train.photographs.patients[31] == "toy/1"
    rows = train.subset(0.2, seed=3)
    assert len(rows) == 12
    assert sorted(rows[:6] + 30) == sorted(rows[6:])
    assert train.subset(1.0, seed=3).tolist() == list(range(60))


def test_label_fractions_of_folders(folders):
    train = load_labelled(str(folders)).train
    assert train.photographs.names[2] == "10/0.png"
    assert sorted(train.targets[train.subset(0.1, seed=0)]) == [0, 1, 2]
