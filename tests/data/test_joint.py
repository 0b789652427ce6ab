import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streaming.base.world import World
from torch.utils.data import DataLoader

from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.joint import JointDataset, device_stratified
from maskedclip_composer.data.streams import open_streams
from maskedclip_composer.errors import UserError

# 33 unpaired in steps of 6 and 11 paired in steps of 4: 5 steps, 3 unpaired left out, the paired stream wraps.
STEPS, PAIRED, UNPAIRED = 5, 4, 6


def what_was_drawn(record: dict[str, Any], stream: str, sample_id: int, rng: np.random.Generator) -> tuple:
    return stream, sample_id, record["source"], rng.random()


def make(sets: dict[str, Path], *, seed: int = 3, transform=what_was_drawn, **keys: Any) -> JointDataset:
    sizes = {"paired": PAIRED, "unpaired": UNPAIRED} | keys.pop("sizes", {})
    streams = {name: StreamConfig(remote=str(folder), batch_size=sizes[name]) for name, folder in sets.items()}
    data = DataConfig(**streams, **keys)
    return JointDataset(open_streams(data), transform=transform, data=data, seed=seed)


def loader(dataset: JointDataset, workers: int = 0) -> DataLoader:
    return DataLoader(dataset, batch_size=dataset.batch_size, num_workers=workers, collate_fn=list, drop_last=True)


def epochs(dataset: JointDataset, count: int, workers: int = 0) -> list[list]:
    batches = loader(dataset, workers)
    return [list(batches) for _ in range(count)]


def ids(batches: list, stream: str) -> list[int]:
    return [item[1] for batch in batches for item in batch if item[0] == stream]


@pytest.fixture(scope="module")
def three_epochs(sets):
    return epochs(make(sets), 3)


def test_every_step_has_the_exact_mix(three_epochs):
    for epoch in three_epochs:
        assert len(epoch) == STEPS
        for batch in epoch:
            assert Counter(item[0] for item in batch) == {"paired": PAIRED, "unpaired": UNPAIRED}


def test_the_transform_gets_the_record_of_its_sample_id(three_epochs):
    for stream, sample_id, source, _ in itertools.chain(*three_epochs[0]):
        assert source == f"{stream}/{sample_id - (11 if stream == 'unpaired' else 0)}.jpg"


def test_an_epoch_is_one_pass_over_the_longer_stream_and_the_shorter_is_cycled(three_epochs):
    for epoch in three_epochs:
        assert len(set(ids(epoch, "unpaired"))) == STEPS * UNPAIRED
        counts = Counter(ids(epoch, "paired"))
        assert set(counts) == set(range(11))
        assert set(counts.values()) == {1, 2}  # 20 draws of 11: whole passes before any third draw
        assert len(set(ids(epoch, "paired")[:11])) == 11


def test_epochs_differ_in_order_and_draws_and_leave_out_other_samples(three_epochs):
    left_out = {frozenset(set(range(11, 44)) - set(ids(epoch, "unpaired"))) for epoch in three_epochs}
    assert len(left_out) > 1
    assert len({str(epoch) for epoch in three_epochs}) == 3
    draws = {
        (e, s, item[1]): item[3]
        for e, epoch in enumerate(three_epochs)
        for s, step in enumerate(epoch)
        for item in step
    }
    assert len(set(draws.values())) == len(draws)


def test_a_seed_gives_the_same_run_and_another_seed_another(sets, three_epochs):
    assert epochs(make(sets), 1) == three_epochs[:1]
    assert epochs(make(sets, seed=4), 1) != three_epochs[:1]


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_equal_with_any_number_of_workers(sets, three_epochs, workers):
    assert epochs(make(sets), 2, workers) == three_epochs[:2]


@pytest.mark.parametrize("kind", ["paired", "unpaired"])
def test_one_stream_alone(sets, kind):
    (epoch,) = epochs(make({kind: sets[kind]}), 1)
    count = {"paired": 2, "unpaired": 5}[kind]
    assert [len(batch) for batch in epoch] == [{"paired": PAIRED, "unpaired": UNPAIRED}[kind]] * count
    assert len(set(ids(epoch, kind))) == len(ids(epoch, kind))


def test_the_paired_stream_may_be_the_longer_one(sets):
    dataset = make(sets, sizes={"paired": 1, "unpaired": 15})
    (epoch,) = epochs(dataset, 1)
    assert len(epoch) == dataset.steps == 11
    assert sorted(ids(epoch, "paired")) == list(range(11))
    assert set(Counter(ids(epoch, "unpaired")).values()) == {5}  # 165 draws of 33


@pytest.mark.parametrize(("nodes", "ranks", "workers"), [(1, 1, 1), (1, 2, 1), (1, 2, 3), (2, 1, 2), (1, 1, 4)])
@pytest.mark.parametrize("first", [0, 3])
def test_ranks_and_workers_share_the_same_steps_with_the_same_mix_each(sets, nodes, ranks, workers, first):
    dataset = make(sets)
    single = device_stratified(dataset, World(1, 1, 1, 0), 1, 0).reshape(STEPS, -1)
    work = device_stratified(dataset, World(nodes, ranks, workers, 0), 1, first * 10)
    world = nodes * ranks
    assert work.shape[:3] == (nodes, ranks, workers)
    assert work.shape[4] == 10 // world
    # The order in which the loaders of all ranks hand out steps: round and worker, then the ranks side by side.
    steps = work.transpose(3, 2, 0, 1, 4).reshape(-1, world, 10 // world)
    assert (steps[STEPS - first :] == -1).all()
    for step, row in zip(single[first:], steps, strict=False):
        assert sorted(row.flatten()) == sorted(step)
        assert ((row < 11).sum(axis=1) == PAIRED // world).all()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("epoch", "step"), [(0, 2), (1, 3), (1, 5), (2, 0)])
def test_a_resumed_run_continues_as_if_never_stopped(sets, three_epochs, workers, epoch, step):
    stopped = make(sets)
    batches = loader(stopped)
    for _ in range(epoch):
        list(batches)
    iterator = iter(batches) if step else iter(())
    for _ in range(step):
        next(iterator)
    state = stopped.state_dict(step * 10, True)  # as Composer calls it: samples of this epoch over all ranks

    resumed = make(sets, seed=99)  # the saved seed wins
    resumed.load_state_dict(state)
    batches = loader(resumed, workers)
    assert list(batches) == three_epochs[epoch][step:]
    for following in three_epochs[epoch + 1 :]:
        assert list(batches) == following


def test_a_second_interruption_before_and_after_the_resumed_epoch_ends(sets, three_epochs):
    resumed = make(sets)
    resumed.load_state_dict({**make(sets).state_dict(20, True), "epoch": 1})
    assert resumed.state_dict(20, True)["epoch"] == 1
    batches = loader(resumed)
    assert list(batches) == three_epochs[1][2:]
    state = resumed.state_dict(0, True)
    assert (state["epoch"], state["sample_in_epoch"]) == (2, 0)


def test_a_run_is_not_resumed_on_other_data(sets):
    state = make(sets).state_dict(0, True)
    with pytest.raises(UserError, match=r"'batch_size': 6.*'batch_size': 3.*interrupted run"):
        make(sets, sizes={"unpaired": 3}).load_state_dict(state)


def test_a_small_shuffle_block_keeps_neighbours_of_a_shard_together(tmp_path, write_set):
    folder = write_set(tmp_path, "unpaired", 200)

    def shards_touched(block: int) -> float:
        dataset = make({"unpaired": folder}, shuffle_block_size=block)
        order = device_stratified(dataset, World(1, 1, 1, 0), 0, 0).reshape(-1, UNPAIRED)
        return float(np.mean([len({dataset.spanner[sample][0] for sample in row}) for row in order]))

    assert shards_touched(30) < 0.7 * shards_touched(262_144)


def test_local_data_is_read_without_polling(sets):
    dataset = make(sets)
    assert dataset.predownload == STEPS * 10
