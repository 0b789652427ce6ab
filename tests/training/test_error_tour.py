"""What goes wrong at a user's desk ends in one message that names the cause and the remedy, before the first batch."""

from collections.abc import Callable
from pathlib import Path

import pytest
from streaming import MDSWriter

import train
from maskedclip_composer.data.schema import COLUMNS
from tests.data.conftest import record
from tests.training.conftest import DEBUG

Overrides = Callable[..., list[str]]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run train.py, expect a refusal, return what stands on stderr from `train.py: error` on."""
    assert train.main(list(arguments)) == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    assert text.count("train.py: error") == 1
    return text.split("train.py: error")[1]


def write(folder: Path, kind: str, samples: int, **edit: object) -> Path:
    with MDSWriter(out=str(folder), columns=COLUMNS[kind], hashes=["xxh64"]) as writer:  # pyright: ignore
        for number in range(samples):
            writer.write(record(kind, number) | edit)
    return folder


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("sed=1", ["unknown key sed", "Did you mean seed"]),
        ("seed=one", ["seed", "'one'"]),
        ("mask_ratio=0.99", ["mask_ratio=0.99 of 16 patches leaves 0 visible"]),
        ("data.image_size=36", ["data.image_size=36", "patch size 8", "Use 32 or 40"]),
        ("image_encoder.name=vit_tinny_patch16_224", ["vit_tinny_patch16_224", "vit_tiny_patch16_224"]),
        ("image_encoder.name=resnet18", ["resnet18", "no ViT"]),
        ("data.paired.remote=/nowhere", ["data.paired", "/nowhere"]),
        ("data.paired.batch_size=20", ["data.paired", "20", "19"]),
        ("text_encoder.name=/nowhere", ["text_encoder.name=/nowhere"]),
        ("optimizer.warmup=8ba", ["optimizer.warmup=8ba", "trainer.max_duration=8ba"]),
    ],
)
def test_values(override: str, named: list[str], overrides: Overrides, capsys: pytest.CaptureFixture[str]):
    message = refusal(capsys, DEBUG, *overrides(override))
    for name in named:
        assert name in message


def test_missing_yaml(capsys: pytest.CaptureFixture[str]):
    assert "yamls/dbug.yaml does not exist" in refusal(capsys, "yamls/dbug.yaml")


def test_a_missing_shard(overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write(tmp_path / "paired", "paired", 12)
    (folder / "shard.00000.mds").unlink()
    message = refusal(capsys, DEBUG, *overrides(f"data.paired.remote={folder}"))
    assert "shard.00000.mds" in message
    assert "data.paired" in message


def test_an_empty_stream(overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write(tmp_path / "unpaired", "unpaired", 0)
    assert "data.unpaired" in refusal(capsys, DEBUG, *overrides(f"data.unpaired.remote={folder}"))


def test_no_text_column(overrides: Overrides, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write(tmp_path / "bare", "unpaired", 12)
    message = refusal(capsys, DEBUG, *overrides(f"data.paired.remote={folder}"))
    assert "texts" in message
    assert "data.paired" in message


def test_an_unreadable_image(overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write(tmp_path / "bad", "unpaired", 12, image=b"\xff\xd8\xff not a photograph", source="eye7.jpg")
    message = refusal(capsys, DEBUG, *overrides(f"data.unpaired.remote={folder}"))
    assert "eye7.jpg" in message


def test_an_unwritable_folder(overrides: Overrides, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    blocked = tmp_path / "file"
    blocked.write_text("")
    message = refusal(capsys, DEBUG, *overrides(f"output={blocked}"))
    assert f"output={blocked}" in message
    assert "Choose another folder" in message


def test_a_second_run_of_the_same_name(overrides: Overrides, capsys: pytest.CaptureFixture[str]):
    assert train.main([DEBUG, *overrides("trainer.max_duration=2ba", "optimizer.warmup=1ba")]) == 0
    message = refusal(capsys, DEBUG, *overrides("checkpoint.resume=false"))
    assert "already holds checkpoints of run_name=debug" in message
