"""Read records from MDS shards with less Python than Streaming spends, which is felt once decoding is fast.

Leans on mosaicml-streaming 0.13.0 (`MDSReader`, `_get_coder`).
"""

import os
import struct
from typing import Any

from streaming.base.format import Reader
from streaming.base.format.mds.encodings import _get_coder
from streaming.base.format.mds.reader import MDSReader

from maskedclip_composer.data.schema import TRAINING_COLUMNS


class QuickReader(MDSReader):
    """Reads the columns that training uses, of shards in the format that `MDSReader` reads.

    Streaming makes a decoder of each column for each record, and reads through Python's file objects.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._path = os.path.join(self.dirname, self.split, self.raw_data.basename)
        coders: list[Any] = [_get_coder(encoding) for encoding in self.column_encodings]
        self._end = self.raw_data.bytes
        self._columns = list(zip(self.column_names, coders, self.column_sizes, strict=True))
        # The sizes of the columns that have none of their own stand at the beginning of a record.
        self._sizes = f"<{self.column_sizes.count(None)}I"  # no struct.Struct, which cannot be pickled

    @classmethod
    def of(cls, reader: Reader) -> Reader:
        """Return a reader of the same shard; itself where it is of another format."""
        if not isinstance(reader, MDSReader):
            return reader
        return cls(
            reader.dirname,
            reader.split,
            reader.column_encodings,
            reader.column_names,
            reader.column_sizes,
            reader.compression,
            reader.hashes,
            reader.raw_data,
            reader.samples,
            reader.size_limit,
            reader.zip_data,
        )

    def get_sample_data(self, idx: int) -> bytes:
        """Return the bytes of a record; raises FileNotFoundError where the shard is not at hand."""
        file = os.open(self._path, os.O_RDONLY)
        try:
            begin, end = struct.unpack("<2I", os.pread(file, 8, (1 + idx) * 4))
            # Not what the file says alone: of a damaged one it could be gigabytes.
            data = os.pread(file, end - begin, begin) if begin < end <= self._end else b""
        finally:
            os.close(file)
        if len(data) < end - begin or not data:
            raise ValueError(f"record {idx} of {self._path} is cut short")
        return data

    def decode_sample(self, data: bytes) -> dict[str, Any]:
        """Decode the columns that training uses."""
        sizes = iter(struct.unpack_from(self._sizes, data))
        at = struct.calcsize(self._sizes)
        sample: dict[str, Any] = {}
        for name, coder, fixed in self._columns:
            size = fixed or next(sizes)
            if name in TRAINING_COLUMNS:
                sample[name] = coder.decode(data[at : at + size])
            at += size
        return sample
