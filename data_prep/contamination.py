"""Keep photographs of downstream test sets, and copies of them, out of the shards for pre-training."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute
import pyarrow.parquet
from numpy.typing import NDArray

from data_prep.fingerprint import NEAR, distances
from data_prep.photograph import Photograph
from data_prep.records import NAME, STORED


@dataclass(frozen=True, kw_only=True)
class TestPhotographs:
    """The photographs that nobody may train on.

    Attributes:
        names: "image of data set", for messages.
        by_sha256: Position of each file.
        hashes: Perceptual hashes [photographs, 32].
    """

    __test__ = False  # for pytest

    names: list[str]
    by_sha256: dict[str, int]
    hashes: NDArray[np.uint8]

    @classmethod
    def of(cls, prepared: list[Path]) -> "TestPhotographs":
        """Collect the stored photographs of split `test` from the manifests of prepared sets."""
        names, files, hashes = [], {}, []
        columns = ["status", "split", "dataset", "image", "sha256", "phash"]
        for folder in prepared:
            table = pyarrow.parquet.read_table(folder / NAME, columns=columns)
            for record in table.to_pylist():
                if record["status"] == STORED and record["split"] == "test":
                    files.setdefault(record["sha256"], len(names))
                    names.append(f"{record['image']} of {record['dataset']}")
                    hashes.append(np.frombuffer(record["phash"], np.uint8))
        return cls(names=names, by_sha256=files, hashes=np.stack(hashes) if hashes else np.empty((0, 32), np.uint8))

    def objection(self, photograph: Photograph) -> str:
        """Say which test photograph this one is, by its file or its look; empty where it is none of them."""
        same = self.by_sha256.get(photograph.sha256)
        if same is not None:
            return f"is the test photograph {self.names[same]}"
        if not self.names:
            return ""
        found = distances(self.hashes, np.frombuffer(photograph.phash, np.uint8))
        nearest = int(found.argmin())
        if found[nearest] > NEAR:
            return ""
        return f"looks like the test photograph {self.names[nearest]} ({found[nearest]} of 256 bits differ)"
