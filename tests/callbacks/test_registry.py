from pathlib import Path

import pytest
from mlflow import MlflowClient

from maskedclip_composer.callbacks.mlflow_store import open_client
from maskedclip_composer.callbacks.registry import describe, register_version, versions_of_run


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> MlflowClient:
    folder = tmp_path_factory.mktemp("store")
    client = open_client(f"sqlite:///{folder / 'mlflow.db'}")
    client.create_experiment("e", (folder / "artifacts").as_uri())
    return client


def register(client: MlflowClient, run_id: str, folder: Path, step: str, name: str = "retina") -> None:
    (folder / "encoder.safetensors").write_bytes(b"weights")
    card = folder / "model_card.md"
    register_version(client, run_id, name=name, encoder=folder / "encoder.safetensors", card=card, tags={"step": step})


def test_a_version_for_each_step_and_none_twice(client: MlflowClient, tmp_path: Path):
    run_id = client.create_run("1").info.run_id
    for step in ("4", "4", "8"):
        register(client, run_id, tmp_path, step)
    versions = versions_of_run(client, run_id, "retina")
    assert sorted(version.tags["step"] for version in versions) == ["4", "8"]
    assert client.get_model_version_by_alias("retina", "newest").tags["step"] == "8"
    assert all("No model card" in str(version.description) for version in versions)
    other = client.create_run("1").info.run_id
    register(client, other, tmp_path, "8")
    assert len(versions_of_run(client, other)) == 1
    assert versions_of_run(client, other, "another model") == []


def test_without_an_encoder_nothing_is_registered(client: MlflowClient, tmp_path: Path):
    run_id = client.create_run("1").info.run_id
    absent = tmp_path / "encoder.safetensors"
    with pytest.raises(FileNotFoundError, match="absent"):
        register_version(client, run_id, name="empty", encoder=absent, card=absent, tags={"step": "1"})
    assert not client.search_registered_models("name = 'empty'")


def test_a_store_of_files_has_a_registry_too(tmp_path: Path):
    client = open_client((tmp_path / "files").as_uri())
    run_id = client.create_run("0").info.run_id
    register(client, run_id, tmp_path, "4")
    assert [version.run_id for version in versions_of_run(client, run_id)] == [run_id]


def test_a_card_is_described_in_full_where_it_fits(tmp_path: Path):
    card = tmp_path / "model_card.md"
    card.write_text("# Model\n\nTrained with s3://me:hunter2@bucket.\n")
    assert describe(card) == "# Model\n\nTrained with s3://***@bucket."
    card.write_text("line\n" * 2000)
    text = describe(card)
    assert len(text) < 5000
    assert text.count("line") > 900
    assert text.endswith("model_card.md.")
