import json

import numpy as np
import pytest
from streaming.base.format import reader_from_json

from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.reading import QuickReader
from maskedclip_composer.data.schema import TRAINING_COLUMNS
from maskedclip_composer.data.transforms import decode


@pytest.mark.parametrize("kind", ["paired", "unpaired"])
def test_records_are_those_of_streaming_in_the_columns_of_training(sets, kind):
    folder = sets[kind]
    for shard in json.loads((folder / "index.json").read_bytes())["shards"]:
        reader = reader_from_json(str(folder), None, shard)
        quick = QuickReader.of(reader)
        assert len(quick) == len(reader) > 0
        for number in range(len(reader)):
            expected = {name: value for name, value in reader[number].items() if name in TRAINING_COLUMNS}
            assert quick[number] == expected
            assert decode(quick[number]["image"]).shape == (40, 48, 3)


def test_a_shard_that_is_gone_or_cut_is_an_error(sets, tmp_path):
    shard = json.loads((sets["unpaired"] / "index.json").read_bytes())["shards"][0]
    quick = QuickReader.of(reader_from_json(str(tmp_path), None, shard))
    with pytest.raises(FileNotFoundError):
        quick[0]
    data = (sets["unpaired"] / shard["raw_data"]["basename"]).read_bytes()
    (tmp_path / shard["raw_data"]["basename"]).write_bytes(data[:-20])
    quick[0]
    with pytest.raises(ValueError, match="is cut short"):
        quick[len(quick) - 1]


def test_generators_are_those_of_the_whole_key():
    from maskedclip_composer.data.joint import _generator

    for key in ([7, 0, 3, 12], [1 << 40, 2, 3, 4], [0, 0, 0, 0], [(1 << 32) - 1, 1, 1, 1]):
        ours, expected = _generator(*key), np.random.default_rng(key)
        assert ours.random() == expected.random()
        assert ours.spawn(1)[0].random() == expected.spawn(1)[0].random()


def test_each_shard_is_asked_for_once_in_the_order_of_use(sets, monkeypatch):
    from maskedclip_composer.data.joint import JointDataset
    from maskedclip_composer.data.streams import open_streams

    config = DataConfig(unpaired=StreamConfig(remote=str(sets["unpaired"]), batch_size=3), num_workers=0)
    dataset = JointDataset(open_streams(config), transform=lambda *access: access[2], data=config, seed=1)
    asked = []
    prepare = dataset.prepare_shard

    def recording(shard: int, blocking: bool = True) -> None:
        asked.append(shard)
        prepare(shard, blocking)

    monkeypatch.setattr(dataset, "prepare_shard", recording)
    order = list(dataset)
    assert len(order) == 33
    shards = [dataset.spanner[sample_id][0] for sample_id in order]
    assert asked == list(dict.fromkeys(shards))
    assert len(asked) == len(dataset.shards) > 3
