"""From one image file to the bytes that training stores: checked, upright, cropped, resized, free of metadata.

Preparation and prediction both come through here, so that a photograph is the same picture to both.
"""

import hashlib
import io
import json
import os
import stat
import warnings
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import simplejpeg
from PIL import Image

from maskedclip_composer.data.limits import FORMATS, check_jpeg, check_size
from maskedclip_composer.data.metadata import strip_metadata
from maskedclip_composer.data.pixels import encode_pixels
from maskedclip_composer.data.retina import Crop, find_retina
from maskedclip_composer.errors import UserError

# PIL reads 16-bit and float modes too, but its conversion to RGB clips them to white.
MODES = frozenset({"RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "YCbCr"})


# Of EXIF 2.3, table 4.6.4, as `ImageOps.exif_transpose` has them.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# libjpeg's words for pixels that are not there; its other warnings are about harmless bytes.
_DAMAGE = ("premature end", "Premature end", "bad Huffman", "bad arithmetic", "found marker")


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


REPORT = "report.json"
"""What a preparation notes of itself, beside its shards."""


def recipe_of_report(report: Path) -> Recipe | None:
    """Read from the `report.json` of a preparation what was done to its photographs; None where it does not say.

    The report of a build tells it of each set. Where a part of them came cropped, the crop of the others counts.
    """
    try:
        content = json.loads(report.read_text())
        sets = {place: told for place, told in content.get("sets", {}).items() if not place.startswith("downstream/")}
        recipes = [_recipe_of_options(told["options"]) for told in (sets.values() if sets else [content])]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # none, or a damaged one
        return None
    recipes.sort(key=lambda recipe: not recipe.crop)
    alike = {replace(recipe, crop=recipes[0].crop) for recipe in recipes}
    return recipes[0] if len(alike) == 1 else None


def _recipe_of_options(options: dict[str, Any]) -> Recipe:
    # Beside the recipe stands what else was asked for, such as pseudonyms.
    known = {field.name: options[field.name] for field in fields(Recipe) if field.name in options}
    if not {"size", "crop"} <= known.keys():
        raise KeyError("size, crop")
    return Recipe(**known)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A photograph as it is stored.

    Attributes:
        data: Baseline JPEG without EXIF, or plain pixels (`pixels.py`).
        image: The RGB picture before it was encoded.
        original_size: Width and height of the original, upright, in pixels.
        sha256: Of the original file.
        crop: The retina in pixels of the original, upright as its EXIF orientation says.
        verbatim: Whether `data` is the original file; only metadata segments were taken out.
    """

    data: bytes
    image: Image.Image
    original_size: tuple[int, int]
    sha256: str
    crop: Crop
    verbatim: bool


def prepare_file(path: str, recipe: Recipe) -> Prepared | str:
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
    return prepare_bytes(original, recipe)


def prepare_bytes(original: bytes, recipe: Recipe) -> Prepared | str:
    """Prepare the content of an image file, or say in a few words why it cannot be used."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about damaged EXIF, without the file's name
            # PIL only warns between one and two times its limit of pixels.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _prepare(original, recipe)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"more than {Image.MAX_IMAGE_PIXELS} pixels"
    except Image.UnidentifiedImageError:
        return "empty file" if not original else f"not an image of the formats {', '.join(FORMATS)}"
    # Corrupt files make PIL's plug-ins raise SyntaxError, struct.error, EOFError, ValueError and more; one file
    # must not end a run over hundreds of thousands.
    except Exception as error:
        return f"cannot be decoded: {error}"


def _prepare(original: bytes, recipe: Recipe) -> Prepared | str:
    with Image.open(io.BytesIO(original), formats=FORMATS) as stored:
        check_size(stored.height, stored.width)
        if stored.format in ("JPEG", "MPO"):
            check_jpeg(original)
        image, is_sound = _load(stored, original)
        if image.mode not in MODES:
            return f"pixel mode {image.mode} is not 8-bit colour or grey"
        baseline = stored.format == "JPEG" and stored.mode == "RGB" and not stored.info.get("progressive")
        orientation = stored.getexif().get(0x0112, 1)  # only now: PIL turns a TIFF when it loads it
        untouched = baseline and is_sound and orientation == 1
        # Neither copies the pixels where there is nothing to do, which costs as much as decoding them.
        image = image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image
        image = image if image.mode == "RGB" else image.convert("RGB")
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
    return Prepared(
        data=kept or _encode(image, recipe),
        image=image,
        original_size=original_size,
        sha256=hashlib.sha256(original).hexdigest(),
        crop=crop,
        verbatim=kept is not None,
    )


def _load(stored: Image.Image, original: bytes) -> tuple[Image.Image, bool]:
    """Decode the pixels, and say whether nothing was wrong with them.

    PIL passes over libjpeg's warnings, the one about a picture whose lower half is missing among them.
    """
    if stored.format in ("JPEG", "MPO") and stored.mode in ("RGB", "L"):
        try:
            # The same pixels at half of PIL's cost.
            return Image.fromarray(simplejpeg.decode_jpeg(original, colorspace="RGB")), True
        except ValueError as error:
            if any(sign in str(error) for sign in _DAMAGE):
                raise ValueError(f"truncated or damaged ({error})") from error
    stored.load()
    return stored, False


def _encode(image: Image.Image, recipe: Recipe) -> bytes:
    if recipe.encoding == "raw":
        return encode_pixels(np.asarray(image))
    buffer = io.BytesIO()
    # Progressive files decode 2.9 times slower; EXIF is not carried over.
    image.save(buffer, "JPEG", quality=recipe.quality, subsampling="4:2:0", progressive=False)
    return buffer.getvalue()
