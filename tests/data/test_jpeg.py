import io

import numpy as np
import pytest
from PIL import Image

from maskedclip_composer.data.jpeg import EOI, SOS, segments


@pytest.mark.parametrize(("progressive", "scans"), [(False, 1), (True, 10)])
def test_segments_are_the_whole_file_and_each_scan_is_one(progressive, scans):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", progressive=progressive)
    file = buffer.getvalue()
    found = list(segments(file + b"appended \xff\xe1"))
    assert b"".join(file[start:end] for _, start, end in found) == file[2:]
    assert [marker for marker, _, _ in found].count(SOS) == scans
    assert found[-1][0] == EOI


@pytest.mark.parametrize("tail", [b"", b"\xff", b"\xff\xff", b"\xff\xe1", b"\xff\xe1\x00", b"\xff\x00", b"\x00"])
def test_a_file_that_is_cut_short_ends(tail):
    assert list(segments(b"\xff\xd8" + tail)) == []
