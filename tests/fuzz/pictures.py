"""Files of every format that is read, files made to do harm, and what chance makes of both."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from maskedclip_composer.data.pixels import encode_pixels

EXTREMES = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


def retina(radius: int) -> Image.Image:
    """A disc of noise, 64 pixels wide; `tests/data_prep/drawing.py` has a better one, and imports Streaming."""
    image = Image.new("RGB", (64, 48))
    ImageDraw.Draw(image).ellipse((32 - radius, 24 - radius, 32 + radius, 24 + radius), fill=(180, 90, 50))
    noise = np.random.default_rng(radius).integers(0, 9, (48, 64, 3), dtype=np.uint8)
    return Image.fromarray(np.asarray(image) + noise)


def saved(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def exif() -> bytes:
    data = Image.Exif()
    data[0x010E], data[0x0112] = "Jane Doe", 6
    data.get_ifd(0x8825)[2] = (48.0, 8.0, 30.0)
    return data.tobytes()


@cache
def whole() -> list[bytes]:
    """One small photograph in every form."""
    image = retina(20)
    several = [retina(radius) for radius in (20, 15, 10)]
    deep = Image.new("I;16", (40, 30), 30_000)
    series = {"save_all": True, "append_images": several[1:]}
    tiff = [{"compression": name} for name in (None, "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")]
    return [
        saved(image, "JPEG", exif=exif(), comment=b"Jane Doe"),
        saved(image, "JPEG", subsampling="4:4:4", icc_profile=b"Jane Doe" * 9),
        saved(image, "JPEG", progressive=True),
        saved(image, "JPEG", restart_marker_rows=1, optimize=True),
        saved(image.convert("L"), "JPEG"),
        saved(image.convert("CMYK"), "JPEG"),
        *(saved(image.convert(mode), "PNG", exif=exif()) for mode in ("RGB", "RGBA", "L", "LA", "P", "1")),
        saved(deep, "PNG"),
        *(saved(image, "TIFF", **options) for options in tiff),
        *(saved(image.convert(mode), "TIFF", exif=exif()) for mode in ("CMYK", "L", "P", "1", "F")),
        saved(several[0], "TIFF", **series),
        *(saved(image.convert(mode), "BMP") for mode in ("RGB", "P", "1")),
        *(saved(image.convert(mode), "PPM") for mode in ("RGB", "L", "1")),
        saved(image, "WEBP", exif=exif()),
        saved(image, "WEBP", lossless=True),
        saved(several[0], "WEBP", **series),
        saved(several[0], "GIF", **series),
        saved(several[0], "MPO", **series),
        encode_pixels(np.asarray(image)),
    ]


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + png_chunk(b"IEND", b"")


def resized(jpeg: bytes, width: int, height: int) -> bytes:
    """The same JPEG with another size in its frame header."""
    at = next(at for at in (jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2")) if at > 0)
    return jpeg[: at + 5] + struct.pack(">HH", height, width) + jpeg[at + 9 :]


def of_many_scans(count: int, side: int) -> bytes:
    """A progressive JPEG that goes over all its pixels `count` times, in 11 bytes each."""
    jpeg = resized(saved(Image.new("RGB", (16, 16), (90, 60, 30)), "JPEG", progressive=True), side, side)
    at = jpeg.rfind(b"\xff\xda")
    return jpeg[:at] + jpeg[at:-2] * count + jpeg[-2:]


def tiff(*tags: tuple[int, int, int, int], data: bytes = b"\0" * 64) -> bytes:
    """A TIFF whose one directory has these tags (tag, type, count, value) and whose strip follows."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0" + data


def tiff_of(width: int, height: int, compression: int, strip: int, data: bytes = b"\0" * 64) -> bytes:
    shorts = [(258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1), (277, 3, 1, 1)]
    longs = [(256, 4, 1, width), (257, 4, 1, height), (278, 4, 1, 0xFFFFFFFF), (279, 4, 1, strip), (273, 4, 1, 122)]
    return tiff(*shorts, *longs, data=data)


@cache
def hostile() -> dict[str, bytes]:
    """Small files that claim much: memory, time, or another program."""
    jpeg = saved(Image.new("RGB", (16, 16)), "JPEG")
    zeros = zlib.compress(b"\0" * 50_000_000, 9)
    head = b"{'descr': '|u1', 'fortran_order': False, 'shape': (99999, 99999, 3), }".ljust(117) + b"\n"
    nested = b"(" * 5000 + b")" * 5000
    bmp = struct.pack("<IIIIiiHH", 99, 0, 54, 40, 2**31 - 1, 2**31 - 1, 1, 24)
    webp = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\xff\x3f\0\xff\x3f\0ANIM\x06" + b"\0" * 9
    return {
        "PNG of 50,000 x 50,000": png(50_000, 50_000, png_chunk(b"IDAT", zeros)),
        "PNG of 2^31 - 1 pixels each way": png(2**31 - 1, 2**31 - 1, png_chunk(b"IDAT", zeros)),
        "PNG with 50 MB in a text chunk": png(4, 4, png_chunk(b"zTXt", b"a\0\0" + zeros), png_chunk(b"IDAT", zeros)),
        "PNG with 50 MB in a colour profile": png(
            4, 4, png_chunk(b"iCCP", b"a\0\0" + zeros), png_chunk(b"IDAT", zeros)
        ),
        "JPEG of 65,500 x 65,500": resized(jpeg, 65_500, 65_500),
        "JPEG of 100,000 scans": of_many_scans(100_000, 8000),
        "JPEG in a TIFF's clothes": b"II*\0" + jpeg,
        "TIFF of 2^31 pixels each way": tiff_of(2**31, 2**31, 1, 64),
        "TIFF with a strip of 4 GiB": tiff_of(4000, 4000, 1, 0xFFFFFFFF),
        "TIFF of 50 MB in 50 kB": tiff_of(7000, 7000, 8, len(zeros), zeros),
        "TIFF of 65,535 x 65,535 in LZW": tiff_of(65_535, 65_535, 5, 64),
        "TIFF whose directory is its own next": tiff((256, 4, 1, 8))[:-68] + b"\x08\0\0\0",
        "TIFF with a tag of 4 billion values": tiff((256, 4, 1, 8), (257, 4, 1, 8), (273, 4, 0xFFFFFFFF, 8)),
        "GIF of 65,535 x 65,535": b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02\x4c\x01\0;",
        "BMP of 2^31 pixels each way": b"BM" + bmp + b"\0" * 24,
        "PPM of 99,999 x 99,999": b"P6 99999 99999 255\n\0\0\0",
        "PPM as text without an end": b"P3 8000 8000 255\n" + b"1" * 1_000_000,
        "WebP of 16,384 x 16,384": webp,
        "a strip of 3 x 65,000": saved(Image.new("RGB", (3, 65_000), (180, 90, 50)), "PNG"),
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n{} loop\n%%EOF\n",
        "a pickle": b"cos\nsystem\n(S'touch owned'\ntR.",
        "pixels of 28 GB": b"\x93NUMPY\x01\0\x76\0" + head,
        "pixels with a nested head": b"\x93NUMPY\x01\0" + struct.pack("<H", 10_000) + nested,
        "nothing": b"",
    }


def cut(files: list[bytes]) -> Iterator[bytes]:
    """The JPEGs of `files`, cut before and in the middle of each of their segments."""
    for data in files:
        if data[:2] != b"\xff\xd8":
            continue
        places = [at for at in range(len(data) - 1) if data[at] == 0xFF and data[at + 1] not in (0, 0xFF)]
        for place in places:
            yield data[:place]
            yield data[: place + 3]


def mutated(files: list[bytes], rng: random.Random) -> bytes:
    """Change a file in one to six places: bits, numbers, pieces taken out, doubled or from another, the end cut off."""
    data = bytearray(rng.choice(files))
    for _ in range(rng.randint(1, 6)):
        if not data:
            break
        # What a decoder believes stands at the beginning.
        at = rng.randrange(min(len(data), rng.choice([40, 700, len(data)])))
        kind = rng.randrange(8)
        if kind <= 2:
            data[at] ^= 1 << rng.randrange(8)
        elif kind <= 4:
            size = rng.choice([1, 2, 4])
            number = rng.choice(EXTREMES) & (256**size - 1)
            data[at : at + size] = number.to_bytes(size, rng.choice(["little", "big"]))
        elif kind == 5:
            del data[at : at + rng.choice([1, 2, 4, 64])]
        elif kind == 6:
            other = rng.choice(files)
            start = rng.randrange(len(other))
            data[at:at] = other[start : start + rng.choice([2, 16, 256])]
        else:
            del data[rng.randrange(len(data)) :]
    return bytes(data)
