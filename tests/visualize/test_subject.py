import shutil

import pytest
import torch
import torch.distributed.checkpoint as dcp

from maskedclip_composer.errors import UserError
from maskedclip_composer.visualize.subject import open_subject, run_of


@pytest.fixture(scope="module")
def run(run_folder, tmp_path_factory):
    """A run whose newest checkpoint says its step, and the same as shards."""
    folder = shutil.copytree(run_folder, tmp_path_factory.mktemp("subject") / "folder")
    file = folder / "checkpoints" / "latest-rank0.pt"
    content = torch.load(file, weights_only=True)
    content["state"]["timestamp"] = {"Timestamp": {"batch": 300, "epoch": 12}}
    torch.save(content, file)
    return folder


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled", "ignore:TypedStorage is deprecated")
def test_a_run_brings_its_decoder_and_step_from_a_file_and_from_shards(run, tmp_path):
    content = torch.load(run / "checkpoints" / "latest-rank0.pt", weights_only=True)
    sharded = tmp_path / "folder"
    (sharded / "checkpoints").mkdir(parents=True)
    shutil.copy(run / "config.yaml", sharded)
    dcp.save(content, storage_writer=dcp.FileSystemWriter(sharded / "checkpoints" / "ep12-ba300"), no_dist=True)
    (sharded / "checkpoints" / "latest-rank0.pt").symlink_to("ep12-ba300")
    for source in (run, run / "checkpoints" / "latest-rank0.pt", sharded, sharded / "checkpoints" / "ep12-ba300"):
        subject, _ = open_subject(str(source), "cpu")
        assert subject.title("x") == "maskedclip, step 300: x"
        assert subject.mask_ratio == 0.75
        assert subject.mim is not None
        assert not subject.mim.training
        for name, value in subject.mim.state_dict().items():
            assert torch.equal(value, content["state"]["model"][f"net.objectives.mim.{name}"])
        assert run_of(source) == (run if source.is_relative_to(run) else sharded)


def test_an_encoder_has_the_name_of_its_folder_and_no_decoder(run):
    subject, _ = open_subject(str(run / "encoder.safetensors"), "cpu")
    assert subject.title("x") == "folder: x"
    assert subject.mim is None
    assert run_of(run / "encoder.safetensors") == run
    assert run_of(run / "checkpoints") is None


def test_a_decoder_of_another_size_is_refused(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    config = folder / "config.yaml"
    text = config.read_text()
    before = "    depth: 1\n    num_heads: 2\n    target_norm"
    assert before in text
    config.write_text(text.replace(before, before.replace("1", "2", 1)))
    with pytest.raises(UserError, match="the pixel decoder"):
        open_subject(str(folder), "cpu")
