import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from composer import ComposerModel, Trainer
from composer.core import DataSpec
from torch.utils.data import DataLoader

from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.joint import JointDataset
from maskedclip_composer.data.loader import build_loader, data_manifest
from maskedclip_composer.data.prompts import PromptConfig
from maskedclip_composer.data.schema import label_id
from maskedclip_composer.data.streams import open_streams
from maskedclip_composer.errors import UserError
from tests.data.conftest import CATEGORIES

GRID, PATCHES = (3, 3), 9


def data_config(sets: dict[str, Path], **keys) -> DataConfig:
    sizes = {"paired": 4, "unpaired": 6}
    streams = {name: StreamConfig(remote=str(folder), batch_size=sizes[name]) for name, folder in sets.items()}
    return DataConfig(**streams, **({"image_size": 24, "num_workers": 0, "max_tokens": 16} | keys))


def build(sets, tokenizer, seed: int = 7, **keys) -> DataSpec:
    return build_loader(data_config(sets, **keys), tokenizer=tokenizer, grid=GRID, seed=seed)


def flat(batches: list) -> dict[str, torch.Tensor]:
    return {
        f"{step} {part} {name}": tensor
        for step, batch in enumerate(batches)
        for part, fields in batch.items()
        for name, tensor in fields.items()
    }


def assert_equal(first: list, second: list) -> None:
    left, right = flat(first), flat(second)
    assert left.keys() == right.keys()
    assert [name for name in left if not torch.equal(left[name], right[name])] == []


def test_a_batch_is_what_the_types_promise(sets, tokenizer):
    spec = build(sets, tokenizer)
    (first, *_) = batches = list(spec.dataloader)
    assert len(spec.dataloader) == len(batches) == 5
    assert spec.num_samples == 50
    shapes = {
        f"{part}.{name}": (tuple(tensor.shape), tensor.dtype)
        for part, fields in first.items()
        for name, tensor in fields.items()
        if name not in ("text_ids", "text_mask")
    }
    expected = {}
    for part, count in (("paired", 4), ("unpaired", 6)):
        expected[f"{part}.image"] = ((count, 3, 24, 24), torch.uint8)
        expected[f"{part}.noise"] = ((count, PATCHES), torch.float32)
        expected[f"{part}.sample_id"] = ((count,), torch.int64)
    assert shapes == expected | {f"paired.{name}": ((4,), torch.int64) for name in ("label", "text_index")}
    assert spec.get_num_samples_in_batch(first) == 10


def test_texts_and_labels_belong_to_their_image(sets, tokenizer):
    for batch in build(sets, tokenizer).dataloader:
        part = batch["paired"]
        for row, sample_id in enumerate(part["sample_id"].tolist()):
            text = tokenizer.decode(part["text_ids"][part["text_index"][row]], skip_special_tokens=True)
            category = CATEGORIES[sample_id % 3]
            labels = {f"a photograph of {category}": label_id(category), f"case {sample_id}": -1 - sample_id}
            assert part["label"][row] == labels[text]


def test_a_category_is_worded_anew_at_every_access(tmp_path, write_set, tokenizer):
    edit = {n: {"texts": ["glaucoma"], "labels": ["glaucoma"], "text_kinds": ["category"]} for n in range(8)}
    folder = write_set(tmp_path / "graded", "paired", 8, edit=edit)
    spec = build({"paired": folder}, tokenizer, max_tokens=32)
    epochs = [list(spec.dataloader) for _ in range(2)]
    texts = []
    for epoch in epochs:
        by_sample = {}
        for part in (batch["paired"] for batch in epoch):
            assert set(part["label"].tolist()) == {label_id("glaucoma")}
            rows = zip(part["sample_id"].tolist(), part["text_index"].tolist(), strict=True)
            by_sample |= {sample_id: tuple(part["text_ids"][index].tolist()) for sample_id, index in rows}
        texts.append(by_sample)
    assert texts[0].keys() == texts[1].keys()
    assert texts[0] != texts[1]
    again = build({"paired": folder}, tokenizer, max_tokens=32)
    assert_equal(epochs[0], list(again.dataloader))
    plain = build(
        {"paired": folder}, tokenizer, max_tokens=32, prompts=PromptConfig(expert=False, template="{category}")
    )
    assert all(len(batch["paired"]["text_ids"]) == 1 for batch in plain.dataloader)


def test_an_unknown_pack_is_named(sets, tokenizer):
    with pytest.raises(UserError, match=r"prompts\.pack = retina-xx: not known"):
        build(sets, tokenizer, prompts=PromptConfig(pack="retina-xx"))


def test_unique_labels_switch_the_categories_off(sets, tokenizer):
    for batch in build(sets, tokenizer, label="unique").dataloader:
        assert torch.equal(batch["paired"]["label"], -1 - batch["paired"]["sample_id"])


@pytest.mark.parametrize("kind", ["paired", "unpaired"])
def test_the_part_of_an_absent_stream_is_absent(sets, tokenizer, kind):
    spec = build({kind: sets[kind]}, tokenizer if kind == "paired" else None)
    assert all(set(batch) == {kind} for batch in spec.dataloader)


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_bit_equal_with_any_number_of_workers(sets, tokenizer, workers):
    alone, shared = build(sets, tokenizer).dataloader, build(sets, tokenizer, num_workers=workers).dataloader
    for _ in range(2):
        assert_equal(list(alone), list(shared))


def test_min_crop_and_flip_reach_the_images(sets, tokenizer):
    images = {
        name: next(iter(build(sets, tokenizer, **keys).dataloader))["unpaired"]["image"]
        for name, keys in {
            "small": {"flip": 0.0},
            "whole": {"flip": 0.0, "min_crop": 1.0},
            "mirrored": {"flip": 1.0, "min_crop": 1.0},
        }.items()
    }
    assert not torch.equal(images["small"], images["whole"])
    difference = images["whole"].flip(3).int() - images["mirrored"].int()
    assert difference.abs().max() <= 1


def test_a_microbatch_is_refused(sets, tokenizer):
    spec = build(sets, tokenizer)
    batch = next(iter(spec.dataloader))
    assert spec.split_batch(batch, 10) == [batch]
    with pytest.raises(UserError, match=r"device_train_microbatch_size = 5: .*contrastive loss.* set it to 10"):
        spec.split_batch(batch, 5)


def test_max_tokens_must_fit_the_text_encoder(sets, tokenizer):
    with pytest.raises(UserError, match=r"data\.max_tokens = 65: .* at most 64"):
        build(sets, tokenizer, max_tokens=65)


@pytest.mark.usefixtures("quick_shutdown")
@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_names_its_record(tmp_path, write_set, workers):
    folder = write_set(tmp_path, "unpaired", 12, edit={4: {"image": b"\xff\xd8\xff no jpeg"}})
    with pytest.raises(UserError, match=r"data\.unpaired sample 4 \(TOY: unpaired/4\.jpg\): cannot be decoded"):
        list(build({"unpaired": folder}, None, num_workers=workers).dataloader)


def test_the_manifest_states_what_was_read(sets):
    manifest = data_manifest(data_config(sets))
    assert set(manifest) == {"paired", "unpaired", "prompts"}
    assert manifest["prompts"]["pack"] == "retina-en"
    assert set(data_manifest(data_config({"unpaired": sets["unpaired"]}))) == {"unpaired"}
    assert manifest["unpaired"]["samples"] == 33
    assert manifest["unpaired"]["path"] == str(sets["unpaired"])
    assert manifest["unpaired"]["shards"] == len(list(sets["unpaired"].glob("shard.*")))
    assert manifest["paired"]["sha256"] != manifest["unpaired"]["sha256"]
    assert json.loads(json.dumps(manifest)) == manifest


class Recorder(ComposerModel):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[int]] = []

    def forward(self, batch):
        self.seen.append(batch["unpaired"]["sample_id"].tolist())
        return self.weight

    def loss(self, outputs, batch):
        return outputs**2


def train(
    sets, tokenizer, folder: Path, duration: str, load: Path | None = None, interval: str = "1ep"
) -> list[list[int]]:
    model = Recorder()
    trainer = Trainer(
        model=model,
        train_dataloader=build(sets, tokenizer),
        max_duration=duration,
        optimizers=torch.optim.SGD(model.parameters(), 0.1),
        device="cpu",
        progress_bar=False,
        save_folder=str(folder),
        save_interval=interval,
        save_filename="ep{epoch}-ba{batch}.pt",
        load_path=None if load is None else str(load),
    )
    trainer.fit()
    trainer.close()
    return model.seen


def test_composer_resumes_within_and_at_the_end_of_an_epoch(sets, tokenizer, tmp_path):
    for interval, batches in (("1ba", (7, 10)), ("1ep", (10,))):
        whole = train(sets, tokenizer, tmp_path / interval, "3ep", interval=interval)
        assert len(whole) == 15
        for batch in batches:
            (checkpoint,) = (tmp_path / interval).glob(f"ep*-ba{batch}.pt")
            assert train(sets, tokenizer, tmp_path / f"{interval}{batch}", "3ep", checkpoint) == whole[batch:]


RANK_SCRIPT = """
import json, sys, time
from torch import distributed as dist
dist.init_process_group("gloo")
from torch.utils.data import DataLoader
from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.joint import JointDataset
from maskedclip_composer.data.streams import open_streams
streams = {"paired": (sys.argv[1], 4), "unpaired": (sys.argv[2], 6)}
data = DataConfig(
    **{
        name: StreamConfig(remote=at, local=f"{sys.argv[3]}/{name}", batch_size=size)
        for name, (at, size) in streams.items()
    }
)
if dist.get_rank() == 0:
    time.sleep(1)  # the other is not to take the cache's index for that of this start
streams = open_streams(data, together=True)
dataset = JointDataset(streams, transform=lambda r, s, i, g: [s, i, g.random()], data=data, seed=7)
loader = DataLoader(dataset, batch_size=dataset.batch_size, collate_fn=list, num_workers=1)
print(json.dumps(list(loader)), flush=True)
dist.destroy_process_group()
"""


def run_ranks(count: int, sets: dict[str, Path], port: int, cache: Path) -> list[list]:
    environment = os.environ | {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK_SCRIPT, str(sets["paired"]), str(sets["unpaired"]), str(cache)],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0] * count
    return [json.loads(output.splitlines()[-1]) for output in outputs]


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_processes_share_the_steps_of_one(sets, unused_port, tmp_path):
    for kind in sets:
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "index.json").write_text("{")  # half of one, of a run that died
    first, second = run_ranks(2, sets, unused_port, tmp_path)
    config = data_config(sets)
    dataset = JointDataset(open_streams(config), transform=lambda r, s, i, g: [s, i, g.random()], data=config, seed=7)
    alone = list(DataLoader(dataset, batch_size=dataset.batch_size, collate_fn=list))
    assert len(first) == len(second) == len(alone) == 5
    for left, right, whole in zip(first, second, alone, strict=True):
        assert [item[0] for item in left] == [item[0] for item in right] == ["paired"] * 2 + ["unpaired"] * 3
        assert sorted(left + right) == sorted(whole)
