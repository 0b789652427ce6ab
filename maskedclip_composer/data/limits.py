"""What an encoded photograph may be, so that no file takes all memory, hours, or a decoder that nobody looks after."""

import re

import simplejpeg

MOST_PIXELS = 89_478_485
"""PIL's own limit: 256 MiB of RGB. The largest fundus cameras have half of it."""
LONGEST = 20
"""The long side as a multiple of the short one; a panorama of a retina has 3. Of a strip that is resized by its short
side, as evaluation and the measures of quality do, the long one fills the memory."""
MOST_SCANS = 100
"""Of a progressive JPEG; libjpeg goes over all pixels for each of them, and 11 bytes are one. Encoders write 10."""
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "DIB", "PPM", "WEBP", "GIF")
"""PIL's names; its JPEG includes MPO. It knows 30 more and goes by the content: PostScript would run Ghostscript."""

# Within a scan a byte 0xff is followed by 0 or a restart marker (ITU-T T.81, B.1.1.5).
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def check_size(height: int, width: int) -> None:
    """Raise ValueError where a photograph of so many pixels is not decoded."""
    if height * width > MOST_PIXELS:
        raise ValueError(f"more than {MOST_PIXELS} pixels")
    if max(height, width) > LONGEST * min(height, width):
        raise ValueError(f"{width} x {height} pixels are a strip and no photograph")


def check_jpeg(data: bytes) -> tuple[int, int]:
    """Return height and width of a JPEG without decoding it.

    Raises:
        ValueError: It has no header, too many pixels or too many scans.
    """
    height, width = map(int, simplejpeg.decode_jpeg_header(data)[:2])
    check_size(height, width)
    if _num_progressive_scans(data) > MOST_SCANS:
        raise ValueError(f"a progressive JPEG with more than {MOST_SCANS} scans")
    return height, width


def _num_progressive_scans(jpeg: bytes) -> int:
    """Count the scans up to the end of the picture; 0 where it is not progressive, which the first header tells."""
    at, scans = 2, 0
    while at + 4 <= len(jpeg) and scans <= MOST_SCANS:
        marker = jpeg[at + 1]
        if jpeg[at] != 0xFF or marker in (0x00, 0xFF):  # what libjpeg skips in search of a marker
            at += 1
        elif marker == 0xD9:
            break
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC2, 0xC4, 0xC8, 0xCA, 0xCC):  # DHT, JPG and DAC are no frames
            break
        else:
            at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
            if marker == 0xDA:
                scans += 1
                following = _AFTER_SCAN.search(jpeg, at)
                if following is None:
                    break
                at = following.start()
    return scans
