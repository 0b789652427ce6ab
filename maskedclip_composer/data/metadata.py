"""Take out of a JPEG file what is not pixels, without decoding it."""

from maskedclip_composer.data.jpeg import EOI, SOS, segments

_SOI, _COM = 0xD8, 0xFE
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
    kept, expected = [jpeg[:2]], 2
    for marker, start, end in segments(jpeg):
        if jpeg[expected:start].strip(b"\xff"):  # fill bytes may stand before a marker
            return None
        segment, expected = jpeg[start:end], end
        if marker == EOI:
            return b"".join([*kept, segment])
        if marker in _NEEDED or marker == SOS:
            kept.append(segment)
        elif marker in _APPLICATION:
            kept.append(_of_the_standard(segment))
        elif marker != _COM:
            return None
    return None


def _of_the_standard(segment: bytes) -> bytes:
    """Return what is to be kept of an application's segment; nothing of most."""
    if segment[1] == 0xE0 and segment[4:9] == b"JFIF\0" and len(segment) >= 18:
        return segment[:2] + b"\x00\x10" + segment[4:16] + b"\x00\x00"  # without its thumbnail
    if segment[1] == 0xEE and segment[4:9] == b"Adobe" and len(segment) >= 16:
        return segment[:2] + b"\x00\x0e" + segment[4:16]
    return b""
