"""Photographs with their labels, from MDS folders or a folder per class, read by index."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from streaming import LocalDataset
from streaming.base.world import World
from torchvision.datasets.folder import IMG_EXTENSIONS

from maskedclip_composer.callbacks.redaction import redact_text
from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.index import read_index
from maskedclip_composer.data.keys import StreamKeys
from maskedclip_composer.data.streams import GuardedStream
from maskedclip_composer.data.subsets import patient_key
from maskedclip_composer.errors import UserError
from maskedclip_composer.evaluation.kinds import TargetKind
from maskedclip_composer.evaluation.ranks import gather_objects


class Photographs(Protocol):
    """Encoded photographs that can be read in any order, each exactly once.

    A StreamingDataset is not one: it repeats samples until they divide over the ranks.

    Attributes:
        labels: Those that are true of each; exactly one where the kind is nominal or ordinal.
        names: Of each, unique.
        patients: Of each, of one data set each; empty where unknown.
        hashes: The sha256 of each original file; empty where unknown.
    """

    labels: list[tuple[str, ...]]
    names: list[str]
    patients: list[str]
    hashes: list[str]

    def image(self, index: int) -> bytes:
        """Return the encoded photograph."""
        ...

    def describe(self, index: int) -> str:
        """Name the record in messages and tables."""
        ...


class MdsPhotographs:
    """Labelled or multilabel records (`data/schema.py`) of one MDS folder whose shards are on this machine."""

    def __init__(self, folder: Path, kind: TargetKind = "nominal"):
        self.folder = folder
        index = read_index(folder, key=str(folder))  # before Streaming, which would unpickle
        _check_columns(folder, index.columns, kind)
        self._records = LocalDataset(str(folder))
        self.labels: list[tuple[str, ...]] = []
        self.names: list[str] = []
        self.patients: list[str] = []
        self.hashes: list[str] = []
        # Row by row: a record brings its photograph, and those of a whole split may not fit into memory.
        for index in range(len(self._records)):
            row = self._records[index]
            self.labels.append(tuple(row["labels"]) if kind == "multilabel" else (row["label"],))
            self.names.append(row["source"])
            self.patients.append(patient_key(row["dataset"], row["patient"]))
            self.hashes.append(row["sha256"])

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
        self.labels = [(file.relative_to(folder).parts[0],) for file in self._files]
        self.names = [file.relative_to(folder).as_posix() for file in self._files]
        self.patients = [""] * len(self._files)
        self.hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in self._files]

    def image(self, index: int) -> bytes:
        """Return the encoded photograph."""
        return self._files[index].read_bytes()

    def describe(self, index: int) -> str:
        """Name the record in messages and tables."""
        return str(self._files[index])


def open_split(data: str, split: str, cache: str | None, kind: TargetKind) -> Photographs:
    """Open one split of a data set; arguments as of `data.load_labelled`.

    Raises:
        UserError: It is missing, incomplete or unreadable, or its labels are of another kind.
    """
    if "://" in data:
        if cache is None:
            address = redact_text(data)
            raise UserError(f"data={address} is a URL, so its shards need a place.\nGive data_cache=FOLDER.")
        return MdsPhotographs(_fetch(f"{data.rstrip('/')}/{split}", cache), kind)
    folder = Path(data) / split
    if not folder.is_dir():
        found = sorted(p.name for p in Path(data).iterdir() if p.is_dir()) if Path(data).is_dir() else []
        raise UserError(
            f"data={data} has no folder {split!r} (it has: {', '.join(found) or 'nothing'}).\n"
            "It must hold train, val and test, each an MDS folder or one folder per class."
        )
    if not (folder / "index.json").is_file():
        if kind == "multilabel":
            raise UserError(
                f"{folder} is a folder per class: a photograph there has one label, not several.\n"
                "Convert a table with `python -m data_prep manifest --kind multilabel --separator '|'`."
            )
        return FolderPhotographs(folder)
    try:
        return MdsPhotographs(folder, kind)
    except FileNotFoundError as error:
        if not any(folder.glob("*.mds.*")):
            raise UserError(
                f"{folder}: a shard of index.json is missing ({error.filename}).\nConvert it again."
            ) from error
    if cache is None:
        raise UserError(f"The shards in {folder} are compressed.\nGive data_cache=FOLDER to unpack them into.")
    return MdsPhotographs(_fetch(str(folder), cache), kind)


def _check_columns(folder: Path, columns: Sequence[str], kind: TargetKind) -> None:
    # Paired records have a column labels too: the categories of their texts.
    multilabel = "labels" in columns and "texts" not in columns
    wanted = "multilabel" if kind == "multilabel" else "labelled"
    if multilabel if kind == "multilabel" else "label" in columns:
        return
    if multilabel:
        remedy = "Give kind=multilabel, or convert the data set as kind `labelled`."
    elif "label" in columns:
        remedy = "Give kind=nominal or kind=ordinal, or convert the data set as kind `multilabel`."
    else:
        remedy = f"Convert the data set as kind `{wanted}`."
    raise UserError(f"{folder} holds no {wanted} records: its columns are {', '.join(columns) or 'none'}.\n{remedy}")


def _fetch(remote: str, cache: str) -> Path:
    """Bring all shards of one split below `cache`, by one process of each machine."""
    local = Path(cache) / hashlib.blake2s(remote.encode(), digest_size=8).hexdigest()
    failure = None
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        try:
            config = StreamConfig(remote=remote, local=str(local), batch_size=1)
            keys = StreamKeys(stream=redact_text(remote), remote="data", local="data_cache")
            stream = GuardedStream(remote, config, DataConfig(unpaired=config), keys=keys)
            for shard in stream.get_shards(World.detect(), False):
                stream.prepare_shard(shard)
        except UserError as error:  # says what to do
            failure = str(error)
        except Exception as error:  # each cloud's client has errors of its own
            failure = (
                f"{remote} could not be read ({type(error).__name__}: {error}).\n"
                "Check the address, the credentials and the network."
            )
    failure = next((text for text in gather_objects(failure) if text), None)
    if failure:
        raise UserError(redact_text(failure))
    return local
