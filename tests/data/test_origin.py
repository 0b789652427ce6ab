from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.joint import JointDataset
from maskedclip_composer.data.origin import find_origin
from maskedclip_composer.data.streams import open_streams


def test_a_sample_is_found_in_its_stream_and_one_whose_shard_is_gone_has_no_origin(sets: dict[str, Path]):
    config = DataConfig(**{kind: StreamConfig(remote=str(folder), batch_size=4) for kind, folder in sets.items()})
    dataset = JointDataset(open_streams(config), transform=lambda *_: None, data=config, seed=1)
    found = [find_origin(dataset, sample_id) for sample_id in (0, 10, 11, 43)]
    sources = ("paired/0.jpg", "paired/10.jpg", "unpaired/0.jpg", "unpaired/32.jpg")
    assert found == [{"dataset": "TOY", "source": source} for source in sources]

    def gone(row: int) -> Any:
        raise FileNotFoundError

    assert find_origin(dataset, 44) == {}
    evicted: Any = SimpleNamespace(spanner=dataset.spanner, shards=np.array([SimpleNamespace(get_item=gone)] * 99))
    assert find_origin(evicted, 0) == {}
