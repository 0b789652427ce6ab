"""Labelled photographs in three splits, from MDS folders or a folder per class, read by index."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Int
from streaming import LocalDataset, Stream
from streaming.base.world import World
from torchvision.datasets.folder import IMG_EXTENSIONS

from maskedclip_composer.data.subsets import patient_key, subset
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.ranks import gather_objects

SPLITS = ("train", "val", "test")


class Photographs(Protocol):
    """Encoded photographs that can be read in any order, each exactly once.

    A StreamingDataset is not one: it repeats samples until they divide over the ranks.
    """

    labels: list[str]
    names: list[str]
    patients: list[str]  # each of one data set; empty where unknown

    def image(self, index: int) -> bytes:
        """Return the encoded photograph."""
        ...

    def describe(self, index: int) -> str:
        """Name the record in messages and tables."""
        ...


class MdsPhotographs:
    """Labelled records (`data/schema.py`) of one MDS folder whose shards are on this machine."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._records = LocalDataset(str(folder))
        columns = self._records.shards[0].column_names if self._records.shards else []
        if "label" not in columns:
            raise UserError(
                f"{folder} holds no labelled records: its columns are {', '.join(columns) or 'none'}.\n"
                "Convert the data set as kind `labelled`."
            )
        self.labels: list[str] = []
        self.names: list[str] = []
        self.patients: list[str] = []
        # Row by row: a record brings its photograph, and those of a whole split may not fit into memory.
        for index in range(len(self._records)):
            row = self._records[index]
            self.labels.append(row["label"])
            self.names.append(row["source"])
            self.patients.append(patient_key(row["dataset"], row["patient"]))

    def image(self, index: int) -> bytes:
        """Return the encoded photograph."""
        return self._records[index]["image"]

    def describe(self, index: int) -> str:
        """Name the record in messages and tables."""
        return f"{self.folder} record {index} ({self.names[index]})"


class FolderPhotographs:
    """A folder with one folder of photographs per class."""

    def __init__(self, folder: Path):
        self._files = sorted(
            file
            for class_folder in sorted(folder.iterdir())
            if class_folder.is_dir()
            for file in class_folder.rglob("*")
            if file.suffix.lower() in IMG_EXTENSIONS
        )
        if not self._files:
            raise UserError(f"{folder} holds neither an MDS index.json nor <class>/<photograph> files.")
        self.labels = [file.relative_to(folder).parts[0] for file in self._files]
        self.names = [file.relative_to(folder).as_posix() for file in self._files]
        self.patients = [""] * len(self._files)

    def image(self, index: int) -> bytes:
        """Return the encoded photograph."""
        return self._files[index].read_bytes()

    def describe(self, index: int) -> str:
        """Name the record in messages and tables."""
        return str(self._files[index])


@dataclass(frozen=True, kw_only=True)
class LabelledSplit:
    """One split; `targets[i]` [images] int64 is the class of photograph `i`."""

    name: str
    photographs: Photographs
    targets: Int[np.ndarray, " images"]

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, fraction: float, seed: int) -> Int[np.ndarray, " chosen"]:
        """Return the rows of a label fraction (`data/subsets.py`), patients whole."""
        return subset(self.targets, fraction, seed, names=self.photographs.names, patients=self.photographs.patients)


@dataclass(frozen=True, kw_only=True)
class LabelledData:
    """A data set; `classes[target]` is a class's name."""

    classes: tuple[str, ...]
    train: LabelledSplit
    val: LabelledSplit
    test: LabelledSplit


def load_labelled(data: str, *, cache: str | None = None) -> LabelledData:
    """Open the splits train, val and test of a labelled data set.

    Each is an MDS folder or a folder per class. Classes are the sorted labels of all splits, by value where all are
    whole numbers.

    Args:
        data: Folder, or a URL that Streaming reads.
        cache: Folder for the shards of a URL, and for those that are stored compressed.

    Raises:
        UserError: A split is missing or of the wrong kind, there is one class only, a class is absent from train, or
            val or test has images of a single class.
    """
    photographs = {split: _open_split(data, split, cache) for split in SPLITS}
    labels = {label for part in photographs.values() for label in part.labels}
    classes = tuple(sorted(labels, key=int) if all(_is_whole(label) for label in labels) else sorted(labels))
    if len(classes) < 2:
        raise UserError(f"{data} has the single class {next(iter(labels), None)!r}; ROC and PRC need at least two.")
    absent = sorted(labels - set(photographs["train"].labels))
    if absent:
        raise UserError(
            f"{data}: no photograph in train has the label {', '.join(map(repr, absent))}, but val or test has.\n"
            "Mend the labels or split the data again."
        )
    for split in ("val", "test"):
        if len(set(photographs[split].labels)) < 2:
            raise UserError(f"{data}: all photographs of {split} have one label, so ROC and PRC are undefined there.")
    positions = {label: index for index, label in enumerate(classes)}
    splits = {
        name: LabelledSplit(
            name=name, photographs=part, targets=np.array([positions[label] for label in part.labels], dtype=np.int64)
        )
        for name, part in photographs.items()
    }
    return LabelledData(classes=classes, **splits)


def _open_split(data: str, split: str, cache: str | None) -> Photographs:
    if "://" in data:
        if cache is None:
            raise UserError(f"data={data} is a URL, so its shards need a place.\nGive data_cache=FOLDER.")
        return MdsPhotographs(_fetch(f"{data.rstrip('/')}/{split}", cache))
    folder = Path(data) / split
    if not folder.is_dir():
        found = sorted(p.name for p in Path(data).iterdir() if p.is_dir()) if Path(data).is_dir() else []
        raise UserError(
            f"data={data} has no folder {split!r} (it has: {', '.join(found) or 'nothing'}).\n"
            "It must hold train, val and test, each an MDS folder or one folder per class."
        )
    if not (folder / "index.json").is_file():
        return FolderPhotographs(folder)
    try:
        return MdsPhotographs(folder)
    except FileNotFoundError as error:
        if not any(folder.glob("*.mds.*")):
            raise UserError(
                f"{folder}: a shard of index.json is missing ({error.filename}).\nConvert it again."
            ) from error
    if cache is None:
        raise UserError(f"The shards in {folder} are compressed.\nGive data_cache=FOLDER to unpack them into.")
    return MdsPhotographs(_fetch(str(folder), cache))


def _fetch(remote: str, cache: str) -> Path:
    """Bring all shards of one split below `cache`, by one process of each machine."""
    local = Path(cache) / hashlib.blake2s(remote.encode(), digest_size=8).hexdigest()
    failure = None
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        try:
            local.mkdir(parents=True, exist_ok=True)
            stream = Stream(remote=remote, local=str(local), download_retry=2, download_timeout=60, keep_zip=False)
            for shard in stream.get_shards(World.detect(), False):
                stream.prepare_shard(shard)
        except Exception as error:  # each cloud's client has errors of its own
            failure = f"{type(error).__name__}: {error}"
    failure = next((text for text in gather_objects(failure) if text), None)
    if failure:
        raise UserError(f"{remote} could not be read ({failure}).\nCheck the address, the credentials and the network.")
    return local


def _is_whole(label: str) -> bool:
    return label.removeprefix("-").isdecimal()
