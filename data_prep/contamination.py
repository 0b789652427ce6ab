"""Keep photographs of downstream test sets, and copies of them, out of the shards for pre-training."""

import csv
import hashlib
import io
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow.parquet
from numpy.typing import NDArray

from data_prep.fingerprint import NEAR, distances
from data_prep.photograph import Photograph
from maskedclip_composer.data.records import CONTAMINATED, NAME, STORED


@dataclass(frozen=True, kw_only=True)
class Contamination:
    """A photograph for pre-training that is, or looks like, one of a downstream test set; a line of the CSV file.

    Attributes:
        group: `paired` or `unpaired`.
        set: Name of its data set.
        image: Path below the root of that set.
        status: `contaminated` where it was kept out, `stored` where it was allowed.
        test_set: Name of the data set whose test photograph it is.
        test_image: That photograph.
        distance: Bits of 256 in which their perceptual hashes differ.
    """

    group: str
    set: str
    image: str
    status: str
    test_set: str
    test_image: str
    distance: int


@dataclass(frozen=True, kw_only=True)
class TestPhotographs:
    """The photographs that nobody may train on.

    Attributes:
        names: Data set and image.
        by_sha256: Position of each file.
        hashes: Perceptual hashes [photographs, 32].
    """

    __test__ = False  # for pytest

    names: list[tuple[str, str]]
    by_sha256: dict[str, int]
    hashes: NDArray[np.uint8]

    @classmethod
    def of(cls, prepared: Iterable[Path]) -> "TestPhotographs":
        """Collect the stored photographs of split `test` from the manifests of prepared sets."""
        names, files, hashes = [], {}, []
        columns = ["status", "split", "dataset", "image", "sha256", "phash"]
        for folder in prepared:
            table = pyarrow.parquet.read_table(folder / NAME, columns=columns)
            for record in table.to_pylist():
                if record["status"] == STORED and record["split"] == "test":
                    files.setdefault(record["sha256"], len(names))
                    names.append((record["dataset"], record["image"]))
                    hashes.append(np.frombuffer(record["phash"], np.uint8))
        return cls(names=names, by_sha256=files, hashes=np.stack(hashes) if hashes else np.empty((0, 32), np.uint8))

    @property
    def fingerprint(self) -> str:
        """Differs for other test photographs: what was prepared against those is to be prepared anew."""
        return hashlib.sha256(
            repr((self.names, list(self.by_sha256), NEAR)).encode() + self.hashes.tobytes()
        ).hexdigest()

    def match(self, sha256: str, phash: bytes) -> tuple[int, int] | None:
        """Return position and distance of the test photograph that this one is or looks like, if there is one."""
        same = self.by_sha256.get(sha256)
        if same is not None:
            return same, 0
        if not self.names:
            return None
        found = distances(self.hashes, np.frombuffer(phash, np.uint8))
        nearest = int(found.argmin())
        return (nearest, int(found[nearest])) if found[nearest] <= NEAR else None

    def objection(self, photograph: Photograph) -> str:
        """Say which test photograph this one is, by its file or its look; empty where it is none of them."""
        found = self.match(photograph.sha256, photograph.phash)
        if found is None:
            return ""
        position, distance = found
        dataset, image = self.names[position]
        if photograph.sha256 in self.by_sha256:
            return f"is the test photograph {image} of {dataset}"
        return f"looks like the test photograph {image} of {dataset} ({distance} of 256 bits differ)"

    def among(self, manifest: Path, *, group: str, name: str) -> list[Contamination]:
        """List the photographs of a prepared set that match, whether they were kept out or not."""
        lines = []
        columns = ["status", "image", "sha256", "phash"]
        for batch in pyarrow.parquet.ParquetFile(manifest).iter_batches(4096, columns=columns):
            for record in batch.to_pylist():
                if record["status"] not in (STORED, CONTAMINATED):
                    continue
                found = self.match(record["sha256"], record["phash"])
                if found is None:
                    continue
                dataset, image = self.names[found[0]]
                lines.append(
                    Contamination(
                        group=group,
                        set=name,
                        image=record["image"],
                        status=record["status"],
                        test_set=dataset,
                        test_image=image,
                        distance=found[1],
                    )
                )
        return lines


def contamination_csv(lines: Iterable[Contamination]) -> str:
    """Write the lines as a table."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([column.name for column in fields(Contamination)])
    writer.writerows(astuple(line) for line in lines)
    return buffer.getvalue()
