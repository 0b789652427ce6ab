"""What an encoded photograph may be, so that no file takes all memory, hours, or a decoder that nobody looks after."""

import simplejpeg

from maskedclip_composer.data.jpeg import SOS, segments

MOST_PIXELS = 89_478_485
"""PIL's own limit: 256 MiB of RGB. The largest fundus cameras have half of it."""
LONGEST = 20
"""The long side as a multiple of the short one; a panorama of a retina has 3. Of a strip that is resized by its short
side, as evaluation and the measures of quality do, the long one fills the memory."""
MOST_SCANS = 100
"""Of a progressive JPEG; libjpeg goes over all pixels for each of them, and 11 bytes are one. Encoders write 10."""
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "DIB", "PPM", "WEBP", "GIF")
"""PIL's names; its JPEG includes MPO. It knows 30 more and goes by the content: PostScript would run Ghostscript."""

# Markers of frames that are not progressive; DHT, JPG and DAC, which lie among them, are no frames.
_OTHER_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC2, 0xC4, 0xC8, 0xCA, 0xCC}


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
    scans = 0
    for marker, _, _ in segments(jpeg):
        scans += marker == SOS
        if scans > MOST_SCANS or marker in _OTHER_FRAMES:
            break
    return scans
