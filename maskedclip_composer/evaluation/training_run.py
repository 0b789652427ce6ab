"""What a pre-training run's folder says of its recipe and of the photographs that it has seen."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from jaxtyping import Bool, UInt8

from maskedclip_composer.config import TrainConfig
from maskedclip_composer.config_file import load_config
from maskedclip_composer.evaluation.source import training_run as training_run

log = logging.getLogger(__name__)

NEAR = 32
"""Bits of 256 of the perceptual hash, up to which two photographs are taken for the same (docs/overlap.md)."""


_MANIFEST = "manifest.parquet"


def recipe(folder: Path) -> dict[str, bool]:
    """Return which parts of MaskedCLIP a run had; nothing for a system with objectives of its own."""
    config = load_config(TrainConfig, str(folder / "config.yaml"), [])
    objectives = config.objectives.present()
    lg_clip, layers = config.objectives.lg_clip, list(config.text_encoder.layers)
    in_another_style = lg_clip is not None and (lg_clip.patches != "whole" or layers != [-1])  # FLIP's, FLAIR's
    if in_another_style or not objectives.keys() <= {"mim", "lg_clip", "mfd"}:
        return {}
    return {name: name in objectives for name in ("mim", "lg_clip", "mfd")} | {"bridge": config.bridge.depth > 0}


def num_images(folder: Path) -> dict[str, int | None]:
    """Return the photographs of each stream of a run, 0 for a stream that it has not; None where nothing says."""
    path = folder / "data_manifest.json"
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError):  # a run of another day, or a damaged file
        return {"paired": None, "unpaired": None}
    return {name: int(manifest.get(name, {}).get("samples", 0)) for name in ("paired", "unpaired")}


def contaminated(folder: Path, sha256: Sequence[str], phashes: Sequence[bytes]) -> Bool[np.ndarray, " images"] | None:
    """Tell which photographs a run has trained on: the same file, or one that looks the same.

    Args:
        folder: The run.
        sha256: Of the photographs' original files, empty where unknown.
        phashes: Perceptual hashes, 32 bytes each, empty where unknown.

    Returns:
        None where some of the run's shards came without a manifest, or where none is found but not all hashes of the
        photographs are known or the run started from weights that may have seen them.
    """
    config = yaml.safe_load((folder / "config.yaml").read_text())
    streams = config.get("data") or {}
    found = ((path, _read(path)) for path in sorted((folder / "data").glob("*/manifest.parquet")))
    manifests = [
        _stored(table, (streams.get(path.parent.name) or {}).get("split")) for path, table in found if table is not None
    ]
    # A stream whose shards came without a manifest may have seen anything.
    trained_on = [count for count in num_images(folder).values() if count is not None]
    if not manifests or not trained_on or sum(map(len, manifests)) < sum(trained_on):
        return None
    seen = pd.concat(manifests)
    same = np.isin(np.array(sha256), seen["sha256"].to_numpy(dtype=str))
    known = [np.frombuffer(value, np.uint8) for value in seen["phash"] if value]
    result = same | _looks_known(phashes, np.array(known, dtype=np.uint8).reshape(len(known), -1))
    from_scratch = (config.get("image_encoder") or {}).get("weights") is None
    return result if result.any() or (from_scratch and all(sha256) and all(phashes)) else None


def perceptual_hashes(data: str, sha256: Sequence[str]) -> list[bytes]:
    """Look up the perceptual hashes of photographs in the manifest beside or above their shards; else empty."""
    folder = Path(data)
    manifest = next((path for place in (folder, *folder.parents[:2]) if (path := place / _MANIFEST).is_file()), None)
    table = None if "://" in data or manifest is None else _read(manifest)
    if table is None:
        return [b""] * len(sha256)
    known = dict(zip(table["sha256"], table["phash"], strict=True))
    return [known.get(value) or b"" for value in sha256]


def _read(path: Path) -> pd.DataFrame | None:
    """Read a manifest; None, with a warning, where the file is damaged or is none of `data_prep`."""
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read (%s): what it lists counts as unknown", path, error)
        return None
    if {"status", "folder", "sha256", "phash"} <= set(table.columns):
        return table
    log.warning("%s is no manifest of data_prep: what it lists counts as unknown", path)
    return None


def _stored(table: pd.DataFrame, split: str | None) -> pd.DataFrame:
    """Return the photographs that a stream could train on.

    The manifest of a set lists all of its splits, that of a build its downstream sets too.
    """
    stored = table["status"] == "stored"
    if "group" in table:
        stored &= table["group"] != "downstream"
    elif split:
        stored &= table["folder"] == split
    return table.loc[stored & (table["sha256"] != ""), ["sha256", "phash"]]


def _looks_known(phashes: Sequence[bytes], seen: UInt8[np.ndarray, "seen bytes"]) -> Bool[np.ndarray, " images"]:
    result = np.zeros(len(phashes), dtype=bool)
    if len(seen):
        for index, phash in enumerate(phashes):  # one at a time: a corpus of a million hashes is 32 MB
            if phash:
                bits = np.bitwise_count(seen ^ np.frombuffer(phash, np.uint8)).sum(axis=1)
                result[index] = bool((bits <= NEAR).any())
    return result
