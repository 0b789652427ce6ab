"""Faults of a store's index.json, and what one from a stranger may not make a run do."""

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.drill.epoch import Epoch, config, write_shards
from tests.drill.fault import Fault, Seen
from tests.drill.faulty_s3 import Rule
from tests.drill.streams_remote import cut, gone, html, stops

INDEX = "index.json"
NAMED = ("data.unpaired:", "s3://shards/set/index.json", "is not the index of a set of MDS shards")


def edited(edit: Callable[[dict[str, Any]], None], content: bytes) -> bytes:
    """Edit what an index says about each shard."""
    index = json.loads(content)
    for shard in index["shards"]:
        edit(shard)
    return json.dumps(index).encode()


def leaves_the_folder(shard: dict[str, Any]) -> None:
    shard["raw_data"]["basename"] = "../../escaped.mds"


def is_absolute(shard: dict[str, Any]) -> None:
    shard["raw_data"]["basename"] = "/escaped.mds"


def pickles(shard: dict[str, Any]) -> None:
    shard["column_encodings"][shard["column_names"].index("crop")] = "pkl"


def unpacks_to_more(shard: dict[str, Any]) -> None:
    shard["raw_data"]["bytes"] = 100


def has_too_many_samples(shard: dict[str, Any]) -> None:
    shard["samples"] = 1 << 40


def name_is_unknown(folder: Path) -> Seen:
    """Name a store that no name server knows."""
    os.environ["S3_ENDPOINT_URL"] = "http://no-such-store.invalid"
    os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_EC2_METADATA_DISABLED": "true"}
    epoch = Epoch(data=config(folder / "cache", download_timeout=20.0), workers=0)
    said = epoch.go_on()
    os.environ["S3_ENDPOINT_URL"] = ""
    epoch.data = config(None, str(write_shards(folder / "set")))
    again = epoch.go_on()
    kept = said is not None and "Could not connect to the endpoint URL" in said and INDEX in said
    return Seen(what=str(said), lost=epoch.lost, kept=kept and again is None and epoch.is_whole)


def _refused(name: str, says: str, edit: Callable[[dict[str, Any]], None], **options: Any) -> Fault:
    run = partial(stops, object_=INDEX, change=partial(edited, edit), says=(*NAMED, says), **options)
    return Fault(name=name, expected=f"refused before anything is read: {says}", within=60.0, run=run)


def _stops(name: str, *says: str, **options: Any) -> Fault:
    run = partial(stops, says=says, **{"object_": INDEX} | options)
    return Fault(name=name, expected="stops at the start and names the index and the cause", within=60.0, run=run)


FAULTS = [
    _stops("index.json is missing in the store", "index.json of s3://shards/set", "answers 404", change=gone),
    _stops("access to the store is refused (403)", "index.json of", "answers 403", rules=(Rule(at=INDEX, what=403),)),
    _stops("index.json is truncated", *NAMED, change=cut),
    _stops("a portal answers with HTML in place of index.json", *NAMED, "it begins with b'<html>", change=html),
    Fault(
        name="the store's name is unknown (DNS)",
        expected="stops in the stated time and names the address",
        within=90.0,
        run=name_is_unknown,
    ),
    _refused("a shard would be written outside the cache (../..)", "outside the set's folder", leaves_the_folder),
    _refused("a shard would be written outside the cache (/...)", "outside the set's folder", is_absolute),
    _refused("a column of pickles", "would run code", pickles),
    _refused("more samples than bytes", "samples in", has_too_many_samples),
    Fault(
        name="a compressed shard unpacks to more than its index lists",
        expected="stops, and unpacks no more than is listed",
        within=60.0,
        run=partial(
            stops,
            object_=INDEX,
            change=partial(edited, unpacks_to_more),
            says=("unpacks to", "its index lists 100", "zstd"),
            written={"compression": "zstd"},
            anew=True,
        ),
    ),
]
