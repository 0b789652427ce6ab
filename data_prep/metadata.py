"""Take out of a JPEG file what is not pixels, without decoding it."""

import re

_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE
# Frame headers of baseline and extended files, tables of Huffman codes and quantisation, restart interval.
_NEEDED = frozenset({0xC0, 0xC1, 0xC4, 0xDB, 0xDD})
_APPLICATION = range(0xE0, 0xF0)


def strip_metadata(jpeg: bytes) -> bytes | None:
    """Take EXIF, XMP, IPTC, colour profiles, comments, thumbnails and appended files out of a JPEG, pixels untouched.

    Photographs carry names, dates and thumbnails of patients there. Kept are the segments that decoding needs (ITU-T
    T.81, annex B), and of JFIF and Adobe's colour transform the fields that the standards name.

    Returns:
        The file without them (equal to `jpeg` where it has none), or None where it is not baseline, has a segment of
        another kind, or does not parse.
    """
    if jpeg[:2] != bytes([0xFF, _SOI]):
        return None
    kept, at = [jpeg[:2]], 2
    while at + 4 <= len(jpeg) or jpeg[at : at + 2] == bytes([0xFF, _EOI]):
        if jpeg[at] != 0xFF:
            return None
        marker = jpeg[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == _EOI:
            return b"".join([*kept, jpeg[at : at + 2]])
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4])
        if marker == _SOS:
            following = _MARKER_AFTER_SCAN.search(jpeg, end)
            if following is None:
                return None
            end = following.start()
        segment = jpeg[at:end]
        if marker in _NEEDED or marker == _SOS:
            kept.append(segment)
        elif marker in _APPLICATION:
            kept.append(_of_the_standard(segment))
        elif marker != _COM:
            return None
        at = end
    return None


def _of_the_standard(segment: bytes) -> bytes:
    """Return what is to be kept of an application's segment; nothing of most."""
    if segment[1] == 0xE0 and segment[4:9] == b"JFIF\0" and len(segment) >= 18:
        return segment[:2] + b"\x00\x10" + segment[4:16] + b"\x00\x00"  # without its thumbnail
    if segment[1] == 0xEE and segment[4:9] == b"Adobe" and len(segment) >= 16:
        return segment[:2] + b"\x00\x0e" + segment[4:16]
    return b""
