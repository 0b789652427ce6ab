"""Every compression that Streaming writes, to exactly the listed size."""

import gzip

import numpy as np
import pytest
from streaming.base.compression import compress

from maskedclip_composer.data.unpack import unpack

NOISE = np.random.default_rng(0).bytes
CONTENTS = (b"x", b"ab" * 127, b"abc" * 30_000, NOISE(255), NOISE(256), NOISE(65_791), NOISE(65_792), NOISE(70_000))


@pytest.mark.parametrize("compression", ["zstd", "zstd:19", "gz:5", "bz2:3", "br", "snappy"])
def test_content_comes_back_and_any_other_size_is_refused(compression):
    for content in CONTENTS:
        packed = compress(compression, content)
        assert unpack(compression, packed, len(content)) == content
        for size in (len(content) - 1, len(content) + 1):
            with pytest.raises(ValueError, match="its index lists"):
                unpack(compression, packed, size)


@pytest.mark.parametrize("compression", ["zstd", "gz", "bz2", "br", "snappy"])
def test_nothing_is_unpacked_beyond_the_listed_size(compression, monkeypatch):
    bomb = compress(compression, bytes(1 << 24))
    for name in ("zstd.decompress", "snappy.decompress"):  # they have no limit: not even called
        monkeypatch.setattr(name, lambda data: pytest.fail("unpacks without a limit"))
    with pytest.raises(ValueError, match="its index lists 1000") as caught:
        unpack(compression, bomb, 1000)
    unpacked = int(str(caught.value).split()[2])
    assert unpacked <= 1 << 16 or compression in ("zstd", "snappy")


@pytest.mark.parametrize(("compression", "packed"), [("zstd", b"garbage"), ("zstd", b""), ("snappy", b"\xff" * 9)])
def test_what_is_not_packed_is_refused(compression, packed):
    with pytest.raises(ValueError, match=rf"is no {compression}"):
        unpack(compression, packed, 10)


def test_an_unknown_compression_is_refused():
    with pytest.raises(ValueError, match="compression rar is unknown"):
        unpack("rar", gzip.compress(b"x"), 1)
