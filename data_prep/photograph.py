"""A prepared photograph with what preparation alone measures of it: its perceptual hash and its quality."""

from dataclasses import dataclass

from data_prep.fingerprint import perceptual_hash
from data_prep.quality import Quality, assess
from maskedclip_composer.data.photograph import Recipe, prepare_file
from maskedclip_composer.data.retina import Crop


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
    prepared = prepare_file(path, recipe)
    if isinstance(prepared, str):
        return prepared
    try:
        phash, quality = perceptual_hash(prepared.image), assess(prepared.image)
    except Exception as error:  # of OpenCV and NumPy: one photograph must not end a run over hundreds of thousands
        return f"cannot be measured: {error}"
    return Photograph(
        data=prepared.data,
        width=prepared.image.width,
        height=prepared.image.height,
        original_size=prepared.original_size,
        sha256=prepared.sha256,
        phash=phash,
        quality=quality,
        crop=prepared.crop,
        verbatim=prepared.verbatim,
    )
