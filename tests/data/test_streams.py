import gc
import re
import shutil
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from maskedclip_composer.data.cache import HeldCache
from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.joint import JointDataset
from maskedclip_composer.data.keys import StreamKeys
from maskedclip_composer.data.source import Source
from maskedclip_composer.data.streams import open_streams
from maskedclip_composer.errors import UserError

BATCH = 4

pytestmark = pytest.mark.usefixtures("quick_shutdown")


def config(remote: Path, cache: Path, **keys) -> DataConfig:
    stream = StreamConfig(remote=str(remote), local=str(cache), batch_size=BATCH)
    return DataConfig(unpaired=stream, **{"download_retry": 0} | keys)


def read_epoch(data: DataConfig, workers: int = 0, transform=lambda record, *_: record["source"]) -> list[str]:
    dataset = JointDataset(open_streams(data), transform=transform, data=data, seed=0)
    batches = DataLoader(dataset, batch_size=BATCH, num_workers=workers, collate_fn=list, timeout=60 if workers else 0)
    return [source for batch in batches for source in batch]


def failure(data: DataConfig, workers: int = 0) -> str:
    with pytest.raises(UserError) as caught:
        read_epoch(data, workers)
    said = str(caught.value)
    # The traceback keeps the data set alive, and with it Streaming's claim on the cache folder: a restart would not.
    del caught
    gc.collect()
    return said


@pytest.fixture
def remote(sets, tmp_path) -> Path:
    return Path(shutil.copytree(sets["unpaired"], tmp_path / "remote"))


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def test_a_truncated_compressed_shard_does_not_stay_in_the_cache(tmp_path, cache, write_set):
    remote = write_set(tmp_path / "remote", "unpaired", 33, compression="zstd")
    shard = remote / "shard.00001.mds.zstd"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-50])
    assert "shard.00001.mds.zstd of" in failure(config(remote, cache))
    shard.write_bytes(whole)
    assert len(set(read_epoch(config(remote, cache)))) == 32


@pytest.mark.parametrize(("retries", "fetches"), [(1, None), (2, 3)])
def test_a_fetch_is_repeated_as_often_as_configured(remote, cache, monkeypatch, retries, fetches):
    fetched = []

    def short_at_first(source, name, target):
        content = (remote / name).read_bytes()
        fetched.append(name)
        arrives_whole = name != "shard.00001.mds" or fetched.count(name) == fetches
        target.write_bytes(content if arrives_whole else content[:-9])

    monkeypatch.setattr(Source, "download", short_at_first)
    monkeypatch.setattr("maskedclip_composer.data.source.wait_before", lambda retry: 0.0)
    data = config(remote, cache, download_retry=retries)
    if fetches is None:
        assert f"in {1 + retries} attempts" in failure(data)
    else:
        assert len(read_epoch(data)) == 32
        assert fetched.count("shard.00001.mds") == fetches


def test_a_password_in_an_address_is_not_said(cache):
    source = Source(StreamKeys.of_training("paired"), "sftp://me:hidden@host/set", "", cache, config(cache, cache))
    assert source.place == "sftp://...@host/set/"


def test_a_source_without_index_is_named(tmp_path, cache):
    said = failure(config(tmp_path / "nowhere", cache))
    assert "data.unpaired: index.json of" in said
    assert "No such file" in said


def test_a_cache_of_another_version_is_refused(remote, cache, sets):
    read_epoch(config(remote, cache))
    gc.collect()
    shutil.copy(sets["paired"] / "index.json", remote / "index.json")
    said = failure(config(remote, cache))
    assert f"the cache {cache} holds another version of {remote}" in said


def test_a_limited_cache_stays_below_its_limit_and_gives_every_sample(tmp_path, cache, write_set):
    remote = write_set(tmp_path / "remote", "unpaired", 100)
    total = sum(file.stat().st_size for file in remote.iterdir())
    limit = 60_000
    assert total > 2 * limit
    largest = 0

    def measure(record, *_):
        nonlocal largest
        sizes = {file.name: file.stat().st_size for file in remote.iterdir()}
        # By name, as a file may be deleted between being listed and being looked at.
        largest = max(largest, sum(sizes[file.name] for file in cache.glob("shard.*.mds")))
        return record["source"]

    assert len(set(read_epoch(config(remote, cache, cache_limit=str(limit)), transform=measure))) == 100
    assert 0 < largest <= limit


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_limited_cache_is_verified_without_being_emptied(tmp_path, cache, write_set, monkeypatch, compression):
    remote = write_set(tmp_path / "remote", "unpaired", 40, compression=compression)
    assert len(set(read_epoch(config(remote, cache)))) == 40
    gc.collect()
    shards = [file.stat().st_size for file in cache.glob("shard.*.mds")]
    damaged = cache / "shard.00001.mds"
    damaged.write_bytes(bytes(damaged.stat().st_size))
    fetched, fetch = [], Source.fetch

    def noted(self, file, target, *how):
        fetched.append(target.name)
        fetch(self, file, target, *how)

    monkeypatch.setattr(Source, "fetch", noted)
    monkeypatch.setattr("maskedclip_composer.data.source.wait_before", lambda retry: 0.0)
    # There is room for all of it, but not for one shard more.
    limit = sum(shards) + (cache / "index.json").stat().st_size + min(shards) // 2
    assert len(set(read_epoch(config(remote, cache, cache_limit=str(limit))))) == 40
    assert fetched == [damaged.name]


@pytest.mark.parametrize("limit", ["1kb", "many"])
def test_an_impossible_cache_limit_is_named(remote, cache, limit):
    assert f"data.cache_limit = {limit}" in failure(config(remote, cache, cache_limit=limit))


def test_a_record_that_cannot_be_read_names_its_shard(remote):
    shard = remote / "shard.00001.mds"
    size = shard.stat().st_size
    shard.write_bytes(bytes(size))
    data = DataConfig(unpaired=StreamConfig(remote=str(remote), batch_size=BATCH), verify="downloads")
    said = failure(data)
    assert "data.unpaired: sample" in said
    assert "in shard shard.00001.mds" in said
    assert shard.exists()


def test_a_set_without_hashes_is_read_with_a_warning(tmp_path, write_set, caplog):
    remote = write_set(tmp_path / "remote", "unpaired", 33, hashes=None)
    assert len(read_epoch(config(remote, tmp_path / "cache"))) == 32
    assert f"data.unpaired: the index of {remote}" in caplog.text
    assert "lists no hash" in caplog.text


def test_what_is_verified_once_is_not_verified_again(remote, monkeypatch):
    looked_at = []
    monkeypatch.setattr("maskedclip_composer.data.streams.find_damage", lambda path, *_: looked_at.append(path.name))
    data = DataConfig(unpaired=StreamConfig(remote=str(remote), batch_size=BATCH))
    dataset = JointDataset(open_streams(data), transform=lambda record, *_: record["source"], data=data, seed=0)
    assert len([*dataset, *dataset]) == 64
    assert sorted(looked_at) == sorted(file.name for file in remote.glob("shard.*"))
    looked_at.clear()
    read_epoch(DataConfig(unpaired=StreamConfig(remote=str(remote), batch_size=BATCH), verify="downloads"))
    assert looked_at == []


def test_verifying_much_is_said(remote, monkeypatch, caplog):
    data = DataConfig(unpaired=StreamConfig(remote=str(remote), batch_size=BATCH))
    read_epoch(data)
    assert "are verified" not in caplog.text
    monkeypatch.setattr("maskedclip_composer.data.guarded._SOON_READ", 1000)
    read_epoch(data)
    assert re.search(r"\d+ shards of 0\.0 GB that are already here are verified", caplog.text)


def test_two_runs_that_exchange_their_caches_take_them_in_one_order(sets, tmp_path, monkeypatch):
    taken = []

    class Noted(HeldCache):
        def __init__(self, folder: Path, key: str) -> None:
            taken.append(folder.name)
            super().__init__(folder, key)

    monkeypatch.setattr("maskedclip_composer.data.guarded.HeldCache", Noted)
    for folders in ("ab", "ba"):
        streams = {
            kind: StreamConfig(remote=str(sets[kind]), local=str(tmp_path / folders / at), batch_size=BATCH)
            for kind, at in zip(("paired", "unpaired"), folders, strict=True)
        }
        data = DataConfig(**streams)
        JointDataset(open_streams(data), transform=lambda *_: None, data=data, seed=0)
    assert taken == ["a", "b", "a", "b"]


def test_the_stated_patience_is_that_of_the_attempts():
    keys = {"unpaired": StreamConfig(remote="x", batch_size=1), "download_timeout": 5.0}
    assert DataConfig(**keys, download_retry=0).patience == 5.0
    assert DataConfig(**keys, download_retry=3).patience == 4 * 5.0 + 1 + 2 + 4
    assert DataConfig(**keys, download_retry=8).patience == 9 * 5.0 + 1 + 2 + 4 + 8 + 16 + 32 + 60 + 60


def test_what_is_read_in_place_is_never_deleted_or_copied(remote):
    before = {file.name: file.read_bytes() for file in remote.iterdir()}
    data = DataConfig(unpaired=StreamConfig(remote=str(remote), batch_size=BATCH))
    assert len(read_epoch(data)) == 32
    assert {file.name: file.read_bytes() for file in remote.iterdir()} == before
