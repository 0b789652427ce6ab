"""From one image file to the bytes that are stored: checked, upright, cropped, resized, free of metadata."""

import hashlib
import io
import os
import re
import stat
import warnings
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from data_prep.crop import Crop, find_retina
from data_prep.fingerprint import perceptual_hash
from data_prep.quality import Quality, assess
from maskedclip_composer.data.pixels import encode_pixels
from maskedclip_composer.errors import UserError

# PIL reads 16-bit and float modes too, but its conversion to RGB clips them to white.
_MODES = frozenset({"RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "YCbCr"})


Encoding = Literal["jpeg", "raw"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is done to every photograph.

    Attributes:
        size: Short side after the crop, in pixels; smaller photographs are never enlarged. 0 keeps all.
        crop: Whether to cut away what surrounds the retina.
        quality: JPEG quality of photographs that are encoded again.
        encoding: `jpeg`, or `raw` for plain pixels: some 20 times the bytes, and nothing to decode in training.
    """

    size: int = 512
    crop: bool = True
    quality: int = 90
    encoding: Encoding = "jpeg"

    def __post_init__(self) -> None:
        if self.size != 0 and self.size < 32:
            raise UserError(f"--size {self.size}: give a short side of at least 32 pixels, or 0 to keep the original")
        if not 50 <= self.quality <= 100:
            raise UserError(f"--quality {self.quality}: give a JPEG quality from 50 to 100; 90 to 95 is usual")
        if self.encoding not in ENCODINGS:
            raise UserError(f"--encoding {self.encoding}: give {' or '.join(ENCODINGS)}")
        if self.encoding == "raw" and self.quality != Recipe.quality:
            raise UserError(f"--quality {self.quality}: --encoding raw stores the pixels; leave one of them out")

    def options(self) -> dict[str, Any]:
        """Return what decides the result, for report and card."""
        return {name: value for name, value in asdict(self).items() if name != "quality" or self.encoding == "jpeg"}


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """A prepared photograph.

    Attributes:
        data: Baseline JPEG without EXIF, or plain pixels (`maskedclip_composer/data/pixels.py`).
        width: Of `data`, in pixels.
        height: Of `data`, in pixels.
        original_size: Width and height of the original, upright, in pixels.
        sha256: Of the original file.
        phash: Perceptual hash of the retina.
        quality: Of the retina.
        crop: The retina in pixels of the original, upright as its EXIF orientation says.
        verbatim: Whether `data` is the original file; only metadata segments were taken out.
    """

    data: bytes
    width: int
    height: int
    original_size: tuple[int, int]
    sha256: str
    phash: bytes
    quality: Quality
    crop: Crop
    verbatim: bool


def prepare(path: str, recipe: Recipe) -> Photograph | str:
    """Prepare the image file at `path`, or say in a few words why it cannot be used."""
    try:
        # Opening a FIFO would wait for a writer for ever, and a device may never end.
        if not stat.S_ISREG(os.stat(path).st_mode):
            return "cannot be read: not a regular file"
        with open(path, "rb") as file:
            original = file.read()
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    try:
        with warnings.catch_warnings():
            # PIL only warns between one and two times its limit of pixels.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _prepare(original, recipe)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"more than {Image.MAX_IMAGE_PIXELS} pixels"
    except Image.UnidentifiedImageError:
        return "empty file" if not original else "not an image"
    # Corrupt files make PIL's plug-ins raise SyntaxError, struct.error, EOFError, ValueError and more; one file
    # must not end a run over hundreds of thousands.
    except Exception as error:
        return f"cannot be decoded: {error}"


def _prepare(original: bytes, recipe: Recipe) -> Photograph | str:
    with Image.open(io.BytesIO(original)) as stored:
        stored.load()
        if stored.mode not in _MODES:
            return f"pixel mode {stored.mode} is not 8-bit colour or grey"
        baseline = stored.format == "JPEG" and stored.mode == "RGB" and not stored.info.get("progressive")
        untouched = baseline and stored.getexif().get(0x0112, 1) == 1
        # Neither copies the pixels where there is nothing to do, which costs as much as decoding them.
        ImageOps.exif_transpose(stored, in_place=True)
        image = stored if stored.mode == "RGB" else stored.convert("RGB")
        image.load()
        image.info.clear()  # PIL writes a comment it finds here into the new file
        original_size = image.size
        crop = find_retina(image) if recipe.crop else Crop(status="off", box=None)
        box = crop.box if crop.status == "cropped" and crop.box is not None else (0, 0, *image.size)
        shape = box[2] - box[0], box[3] - box[1]
        if recipe.size and min(shape) > recipe.size:
            scale = recipe.size / min(shape)
            size = max(recipe.size, round(shape[0] * scale)), max(recipe.size, round(shape[1] * scale))
            # Averaged by whole numbers down to twice the size first: less than half the cost, the same picture to 2 of
            # 255 grey levels (0.2 on average, eight photographs of 10 megapixels).
            image = image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=2.0)
        else:
            image = image.crop(box)
        untouched = untouched and image.size == original_size

    kept = strip_metadata(original) if untouched and recipe.encoding == "jpeg" else None
    return Photograph(
        data=kept or _encode(image, recipe),
        width=image.width,
        height=image.height,
        original_size=original_size,
        sha256=hashlib.sha256(original).hexdigest(),
        phash=perceptual_hash(image),
        quality=assess(image),
        crop=crop,
        verbatim=kept is not None,
    )


def _encode(image: Image.Image, recipe: Recipe) -> bytes:
    if recipe.encoding == "raw":
        return encode_pixels(np.asarray(image))
    buffer = io.BytesIO()
    # Progressive files decode 2.9 times slower; EXIF is not carried over.
    image.save(buffer, "JPEG", quality=recipe.quality, subsampling="4:2:0", progressive=False)
    return buffer.getvalue()


_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SOI, _EOI, _SOS, _COM = 0xD8, 0xD9, 0xDA, 0xFE


def strip_metadata(jpeg: bytes) -> bytes | None:
    """Take EXIF, XMP, IPTC, colour profiles, comments and appended files out of a JPEG file, pixels untouched.

    Photographs carry names, dates and thumbnails of patients there. Kept are the segments that decoding needs, JFIF
    and Adobe's colour-transform flag included (ITU-T T.81, annex B).

    Returns:
        The file without them (equal to `jpeg` where it has none), or None where its segments do not parse.
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
        jfif = marker == 0xE0 and segment[4:9] == b"JFIF\0"
        adobe = marker == 0xEE and segment[4:9] == b"Adobe"
        if jfif or adobe or not (0xE0 <= marker <= 0xEF or marker == _COM):
            kept.append(segment)
        at = end
    return None
