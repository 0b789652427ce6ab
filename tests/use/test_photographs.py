import json
import os
import shutil

import numpy as np
import pytest
import torch

from maskedclip_composer.data.photograph import Recipe
from maskedclip_composer.errors import UserError
from maskedclip_composer.use.photographs import batches, open_photographs
from maskedclip_composer.use.transform import PhotographTransform
from tests.evaluation.conftest import write_mds
from tests.use.conftest import GOOD

TRANSFORM = PhotographTransform(Recipe(), 32)


def read(source, images=None, *, batch_size=2, workers=0):
    found = list(batches(open_photographs(source, images), TRANSFORM, batch_size=batch_size, workers=workers))
    return [one for batch in found for one in batch.photographs], torch.cat([b.images for b in found if len(b.images)])


def test_a_folder_is_read_in_the_order_of_its_paths_and_a_broken_file_is_named(photographs):
    found, images = read(photographs)
    assert [one.name for one in found] == [*GOOD[:2], "broken.jpg", *GOOD[2:]]
    assert ["cannot be decoded" in one.reason for one in found] == [False, False, True, False, False]
    assert images.shape == (4, 3, 32, 32)
    for image, name in zip(images, GOOD, strict=True):
        assert torch.equal(image, TRANSFORM(photographs / name))
    assert {(one.crop, one.width, one.height) for one in found if not one.reason} == {("cropped", 200, 160)}


def test_workers_change_nothing(photographs):
    alone, images = read(photographs)
    for workers in (1, 2):
        others, same = read(photographs, workers=workers)
        assert others == alone
        assert torch.equal(same, images)


def test_a_batch_without_a_readable_photograph_is_one(tmp_path):
    (tmp_path / "a.png").touch()
    (batch,) = batches(open_photographs(tmp_path), TRANSFORM, batch_size=4)
    assert len(batch.images) == 0
    assert batch.readable == []
    assert batch.photographs[0].reason == "empty file"


def test_one_file_is_enough(photographs):
    found, images = read(photographs / GOOD[1])
    assert [one.name for one in found] == ["ü 右.png"]
    assert torch.equal(images[0], TRANSFORM(photographs / GOOD[1]))


def test_reading_can_start_later(photographs):
    later = list(batches(open_photographs(photographs), TRANSFORM, batch_size=2, start=2))
    assert [one.name for batch in later for one in batch.photographs] == ["broken.jpg", *GOOD[2:]]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_gives_order_and_columns(photographs, tmp_path, suffix):
    import pandas as pd

    rows = pd.DataFrame({"Image": [GOOD[2], "absent.jpg"], "text": ["ödem, 1", None], "age": [61, 7]})
    path = tmp_path / f"table.{suffix}"
    if suffix == "parquet":
        rows.to_parquet(path)
    elif suffix == "jsonl":
        rows.to_json(path, orient="records", lines=True, force_ascii=False)
    else:
        rows.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    found, images = read(path, photographs)
    assert [one.name for one in found] == [GOOD[2], "absent.jpg"]
    assert [one.columns for one in found] == [{"text": "ödem, 1", "age": "61"}, {"text": "", "age": "7"}]
    assert found[1].reason == "no such file"
    assert torch.equal(images[0], TRANSFORM(photographs / GOOD[2]))


def test_the_paths_of_a_table_start_from_its_own_folder(photographs, tmp_path):
    shutil.copy(photographs / GOOD[2], tmp_path / "c.JPG")
    (tmp_path / "table.csv").write_text("image\nc.JPG\n")
    assert len(read(tmp_path / "table.csv")[1]) == 1


def test_a_record_becomes_what_its_original_becomes(photographs, table, prepared):
    """Bit by bit: the same crop, the same JPEG, the same view."""
    of_files, images = read(table, photographs)
    of_records, same = read(prepared)
    assert torch.equal(same, images)
    assert [one.name for one in of_records] == [one.name for one in of_files]
    assert [one.sha256 for one in of_records] == [one.sha256 for one in of_files]
    assert [one.crop for one in of_records] == [one.crop for one in of_files]
    assert [one.columns["label"] for one in of_records] == [one.columns["label"] for one in of_files]


def test_splits_are_read_one_after_the_other(prepared, tmp_path):
    for split in ("b", "a"):
        shutil.copytree(prepared, tmp_path / split)
    (tmp_path / "contact_sheet.jpg").touch()  # beside the shards of a prepared set
    found = open_photographs(tmp_path)
    assert len(found) == 2 * len(GOOD)
    first, image = found.read(0, TRANSFORM)
    again, same = found.read(len(GOOD), TRANSFORM)
    assert first == again
    assert torch.equal(image, same)  # pyright: ignore[reportArgumentType]


def test_a_damaged_record_is_named(tmp_path):
    write_mds(tmp_path, ["a", "b"], [b"no picture", b"\xff\xd8\xff no picture"])
    found, _ = [one for b in batches(open_photographs(tmp_path), TRANSFORM, batch_size=8) for one in b.photographs]
    assert found.name == "0.png"
    assert "cannot be decoded" in found.reason


def test_pictures_can_be_looked_at(photographs, table, prepared):
    of_files, of_records = open_photographs(table, photographs), open_photographs(prepared)
    picture = of_files.picture(0, TRANSFORM)
    assert isinstance(picture, np.ndarray)
    np.testing.assert_array_equal(picture, of_records.picture(0, TRANSFORM))
    assert "cannot be decoded" in str(open_photographs(photographs / "broken.jpg").picture(0, TRANSFORM))


def test_the_fingerprint_is_of_the_place_and_the_files(photographs, table, prepared, tmp_path):
    other = shutil.copytree(photographs, tmp_path / "other")  # with the times
    shards = shutil.copytree(prepared, tmp_path / "shards")
    sources = [(other,), (other / "c.JPG",), (table, other), (shards,)]
    seen = {open_photographs(*source).fingerprint for source in sources}
    there = [(photographs,), (photographs / "c.JPG",), (table, photographs), (prepared,)]
    assert len(seen | {open_photographs(*source).fingerprint for source in there}) == 8
    (tmp_path / "link").symlink_to(other)
    assert open_photographs(tmp_path / "link").fingerprint in seen
    for file in (other / "c.JPG", next(shards.glob("*.mds"))):
        os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert not seen & {open_photographs(*source).fingerprint for source in sources}
    before = open_photographs(other).fingerprint
    (other / "c.JPG").unlink()
    assert open_photographs(other).fingerprint != before


def test_a_name_that_is_no_utf_8_can_be_stored(photographs, tmp_path):
    shutil.copy(photographs / GOOD[2], os.fsencode(tmp_path) + b"/\xff.jpg")
    (found,), images = read(tmp_path)
    assert found.name == "\ufffd.jpg"
    assert len(images) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent", None, "absent does not exist"),
        ("photographs.zip", "", "suffix .zip is not known"),
        ("table.csv", "path,label\na.jpg,1\n", "no column image; it has path, label"),
        ("table.csv", "images,label\na.jpg,1\n", "Rename images to image"),
        ("table.csv", "image,IMAGE\na.jpg,1\n", "Rename one of them"),
        ("table.csv", "image,label\na.jpg,1\n,2\n", "row 3 names no image"),
        ("table.csv", "image\n../a.jpg\n", r"row 2: image '../a.jpg' lies outside"),
        ("table.csv", "image\n/etc/passwd\n", "row 2: image '/etc/passwd' lies outside"),
        ("table.csv", "image\na.jpg\nb.jpg\n", "none of its 2 images is below"),
        ("empty/.hidden.jpg", "", "empty holds no photograph"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_read(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        open_photographs(tmp_path / name.split("/")[0])


def test_a_link_out_of_the_root_is_refused(photographs, tmp_path):
    (tmp_path / "link.jpg").symlink_to(photographs / GOOD[2])
    (tmp_path / "table.csv").write_text("image\nlink.jpg\n")
    with pytest.raises(UserError, match="lies outside the image root"):
        open_photographs(tmp_path / "table.csv")


def test_images_are_for_tables(photographs):
    with pytest.raises(UserError, match="is no table"):
        open_photographs(photographs, photographs)
    with pytest.raises(UserError, match="object store"):
        open_photographs("s3://bucket/photographs")


def test_shards_that_would_be_unpickled_are_refused(prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "set")
    index = json.loads((folder / "index.json").read_text())
    for shard in index["shards"]:
        shard["column_encodings"] = ["pkl" for _ in shard["column_encodings"]]
    (folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="pkl"):
        open_photographs(folder)


def test_incomplete_shards_are_refused(prepared, tmp_path):
    folder = shutil.copytree(prepared, tmp_path / "set")
    next(folder.glob("*.mds")).unlink()
    with pytest.raises(UserError, match="is missing"):
        open_photographs(folder)
    write_mds(tmp_path / "packed", ["a"], [b"x"], compression="zstd:3")
    with pytest.raises(UserError, match="stored compressed"):
        open_photographs(tmp_path / "packed")
