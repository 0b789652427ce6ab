import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from maskedclip_composer.config import TrainConfig, to_yaml
from maskedclip_composer.config_file import load_config
from maskedclip_composer.evaluation.training_run import (
    NEAR,
    contaminated,
    num_images,
    perceptual_hashes,
    recipe,
    training_run,
)

ROOT = Path(__file__).parents[2]


def manifest(path: Path, rows: list[tuple], **more) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows, columns=pd.Index(["status", "sha256", "phash"]))
    table.assign(**({"folder": ""} | more)).to_parquet(path)


def samples(run: Path, paired: int) -> None:
    (run / "data_manifest.json").write_text(json.dumps({"paired": {"samples": paired}}))


def flipped(phash: bytes, bits: int) -> bytes:
    whole = np.unpackbits(np.frombuffer(phash, np.uint8))
    whole[:bits] ^= 1
    return np.packbits(whole).tobytes()


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("a: b\n")
    return tmp_path / "run"


HASHES = [np.random.default_rng(seed).bytes(32) for seed in range(4)]


def test_the_same_file_and_one_that_looks_the_same_count_and_what_was_not_stored_does_not(run):
    manifest(
        run / "data" / "paired" / "manifest.parquet", [("stored", "a", HASHES[0]), ("quarantined", "b", HASHES[1])]
    )
    manifest(run / "data" / "unpaired" / "manifest.parquet", [("stored", "c", HASHES[2])])
    samples(run, 2)
    sha256 = ["a", "b", "c", "d", "e", ""]
    phashes = [b"", HASHES[1], b"", flipped(HASHES[2], NEAR), flipped(HASHES[2], NEAR + 1), b""]
    found = contaminated(run, sha256, phashes)
    assert found is not None
    assert found.tolist() == [True, False, True, True, False, False]


def test_the_downstream_sets_of_a_build_are_not_trained_on(run):
    samples(run, 1)
    rows = [("stored", "a", HASHES[0]), ("stored", "b", HASHES[1])]
    manifest(run / "data" / "paired" / "manifest.parquet", rows, group=["paired", "downstream"])
    found = contaminated(run, ["a", "b"], [b"", b""])
    assert found is not None
    assert found.tolist() == [True, False]


def test_the_splits_that_a_stream_did_not_read_are_not_trained_on(run):
    (run / "config.yaml").write_text("data: {paired: {split: train}, unpaired: null}\n")
    samples(run, 1)
    rows = [("stored", "a", HASHES[0]), ("stored", "b", HASHES[1])]
    manifest(run / "data" / "paired" / "manifest.parquet", rows, folder=["train", "test"])
    found = contaminated(run, ["a", "b"], [HASHES[0], HASHES[1]])
    assert found is not None
    assert found.tolist() == [True, False]


def test_a_damaged_manifest_and_one_of_something_else_are_unknown(run, tmp_path, caplog):
    samples(run, 1)
    path = run / "data" / "paired" / "manifest.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1 cut")
    assert contaminated(run, ["a"], [HASHES[0]]) is None
    pd.DataFrame({"file": ["x"]}).to_parquet(tmp_path / "manifest.parquet")
    (tmp_path / "set").mkdir()
    assert perceptual_hashes(str(tmp_path / "set"), ["a"]) == [b""]
    assert "cannot be read" in caplog.text
    assert "no manifest of data_prep" in caplog.text


def test_what_nothing_says_is_unknown(run):
    assert num_images(run) == {"paired": None, "unpaired": None}
    assert contaminated(run, ["a"], [HASHES[3]]) is None
    samples(run, 1)
    assert contaminated(run, ["a"], [HASHES[3]]) is None
    manifest(run / "data" / "paired" / "manifest.parquet", [("stored", "a", HASHES[0])])
    assert contaminated(run, ["b"], [HASHES[3]]).tolist() == [False]
    # Neither hash may be missing where nothing is found; what is found is known all the same.
    assert contaminated(run, ["b"], [b""]) is None
    assert contaminated(run, [""], [HASHES[3]]) is None
    assert contaminated(run, ["b", "a"], [b"", b""]).tolist() == [False, True]
    # A stream whose shards came without a manifest may have seen anything.
    samples(run, 2)
    assert contaminated(run, ["b"], [HASHES[3]]) is None


def test_what_the_first_weights_have_seen_is_unknown(run):
    (run / "config.yaml").write_text("image_encoder: {weights: 'retfound:a.pth'}\n")
    samples(run, 1)
    manifest(run / "data" / "paired" / "manifest.parquet", [("stored", "a", HASHES[0])])
    assert contaminated(run, ["b"], [HASHES[3]]) is None
    assert contaminated(run, ["b", "a"], [HASHES[3], HASHES[0]]).tolist() == [False, True]


def test_numbers_of_images(run):
    (run / "data_manifest.json").write_text(json.dumps({"unpaired": {"samples": 851}, "prompts": {"pack": "x"}}))
    assert num_images(run) == {"paired": 0, "unpaired": 851}
    (run / "data_manifest.json").write_text('{"unpaired": ')
    assert num_images(run) == {"paired": None, "unpaired": None}


def test_hashes_are_found_beside_the_shards_and_above_a_group(tmp_path):
    manifest(tmp_path / "manifest.parquet", [("stored", "a", HASHES[0]), ("stored", "b", None)])
    (tmp_path / "downstream" / "idrid").mkdir(parents=True)
    assert perceptual_hashes(str(tmp_path / "downstream" / "idrid"), ["a", "b", "c"]) == [HASHES[0], b"", b""]
    assert perceptual_hashes("s3://bucket/set", ["a"]) == [b""]
    assert perceptual_hashes(str(tmp_path / "elsewhere" / "far" / "off" / "x"), ["a"]) == [b""]


def test_a_run_is_found_from_every_way_to_name_it(run):
    for source in (run, run / "latest", run / "encoder.safetensors", run / "checkpoints" / "latest-rank0.pt"):
        assert training_run(str(source)) == run
    for source in ("random:vit", f"random:{run}", f"timm:{run}", str(run.parent)):
        assert training_run(source) is None


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("mae", {"mim"}),
        ("clip", {"lg_clip"}),
        ("mae_clip", {"mim", "lg_clip"}),
        ("bridge", {"mim", "lg_clip", "bridge"}),
        ("maskedclip", {"mim", "lg_clip", "bridge", "mfd"}),
        ("flip", set()),  # systems of their own are no rows of the ablation
        ("flair", set()),
        ("mlip", set()),
    ],
)
def test_recipes_of_the_ablation(run, name, parts):
    content = yaml.safe_load((ROOT / "yamls" / "pretrain" / f"{name}.yaml").read_text())
    for kind in ("paired", "unpaired"):
        if kind in content["data"]:
            content["data"][kind]["remote"] = kind
    (run / "written.yaml").write_text(yaml.safe_dump(content))
    resolved = to_yaml(load_config(TrainConfig, str(run / "written.yaml"), []))  # as a run's folder has it
    assert "null" in resolved
    (run / "config.yaml").write_text(resolved)
    assert {part for part, present in recipe(run).items() if present} == parts
