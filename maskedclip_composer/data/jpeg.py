"""Where the segments of a JPEG file lie (ITU-T T.81, annex B)."""

import re
from collections.abc import Iterator

EOI, SOS = 0xD9, 0xDA
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # TEM, restarts and SOI have no length
# Within a scan a byte 0xff is followed by 0 or a restart marker (B.1.1.5).
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def segments(jpeg: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of each segment after the first marker, up to EOI or where the file is cut short.

    A scan's pixels belong to its SOS. What lies between segments is skipped, as libjpeg does in search of a marker.
    """
    at = 2
    while 0 <= (at := jpeg.find(b"\xff", at)) < len(jpeg) - 1:
        marker = jpeg[at + 1]
        if marker in (0x00, 0xFF):
            at += 1
            continue
        if marker == EOI or marker in _ALONE:
            end = at + 2
        elif at + 4 > len(jpeg):
            return
        else:
            end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4])
        if marker == SOS:
            following = _AFTER_SCAN.search(jpeg, end)
            end = following.start() if following else len(jpeg)
        yield marker, at, end
        if marker == EOI:
            return
        at = end
