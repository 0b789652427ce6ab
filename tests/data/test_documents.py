from pathlib import Path

import pytest

from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.documents import collect_documents


def config(paired: str | None, unpaired: str) -> DataConfig:
    streams = {"paired": StreamConfig(remote=paired, batch_size=1)} if paired else {}
    return DataConfig(**streams, unpaired=StreamConfig(remote=unpaired, batch_size=1))


def write(folder: Path, text: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("DATA_CARD.md", "manifest.parquet"):
        (folder / name).write_text(text or folder.name)
    return folder


def collected(found: list[Path], folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def test_each_streams_own_documents(tmp_path):
    paired, unpaired = write(tmp_path / "a"), write(tmp_path / "b")
    found = collect_documents(config(str(paired), f"file://{unpaired}/"), tmp_path / "out")
    assert collected(found, tmp_path / "out") == {
        "paired/DATA_CARD.md": "a",
        "paired/manifest.parquet": "a",
        "unpaired/DATA_CARD.md": "b",
        "unpaired/manifest.parquet": "b",
    }


def test_those_of_a_build_lie_above_and_are_taken_once(tmp_path):
    root = write(tmp_path / "build")
    for group in ("paired", "unpaired"):
        (root / group).mkdir()
    found = collect_documents(config(str(root / "paired"), str(root / "unpaired")), tmp_path / "out")
    assert set(collected(found, tmp_path / "out")) == {"paired/DATA_CARD.md", "paired/manifest.parquet"}


def test_shards_of_another_origin_have_none(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert collect_documents(config(None, str(tmp_path / "a" / "b")), tmp_path / "out") == []
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore")
def test_from_an_object_store(tmp_path, bucket):
    for name in ("DATA_CARD.md", "manifest.parquet"):
        bucket.put_object(Bucket="shards", Key=f"build/{name}", Body=name.encode())
    found = collect_documents(config(None, "s3://shards/build/unpaired"), tmp_path / "out")
    assert collected(found, tmp_path / "out") == {
        "unpaired/DATA_CARD.md": "DATA_CARD.md",
        "unpaired/manifest.parquet": "manifest.parquet",
    }
    assert collect_documents(config(None, "s3://shards/other/unpaired"), tmp_path / "none") == []


def test_the_folder_above_a_relative_one_is_the_working_folder(tmp_path, monkeypatch):
    (write(tmp_path / "build") / "unpaired").mkdir()
    monkeypatch.chdir(tmp_path / "build")
    found = collect_documents(config(None, "unpaired"), tmp_path / "out")
    assert set(collected(found, tmp_path / "out")) == {"unpaired/DATA_CARD.md", "unpaired/manifest.parquet"}
