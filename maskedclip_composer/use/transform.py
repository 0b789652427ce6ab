"""From a photograph as it lies on a disk to the model's input, by the same steps as in preparation and training."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from maskedclip_composer.data.photograph import MODES, Prepared, Recipe, prepare_bytes, prepare_file
from maskedclip_composer.data.transforms import eval_transform
from maskedclip_composer.errors import UserError


@dataclass(frozen=True)
class PhotographTransform:
    """Crop to the retina, resize and encode as `data_prep` does, then cut the centre as evaluation does.

    The photograph is encoded as JPEG on the way because the shards are: a feature of the file then equals that of its
    record, bit by bit.

    Attributes:
        recipe: Of the preparation.
        image_size: Side of the result in pixels.
    """

    recipe: Recipe
    image_size: int

    def __call__(self, photograph: str | Path | bytes | Image.Image) -> UInt8[Tensor, "3 size size"]:
        """Return the model's input for a file, its content, or an opened image.

        Raises:
            UserError: The photograph cannot be read; the message names the file.
        """
        prepared = self.prepare(photograph)
        if isinstance(prepared, str):
            name = photograph if isinstance(photograph, str | Path) else "the photograph"
            raise UserError(f"{name}: {prepared}.\nOpen it in a viewer, and remove or replace it.")
        return self.of_record(prepared.data)

    def prepare(self, photograph: str | Path | bytes | Image.Image) -> Prepared | str:
        """Prepare a photograph as `data_prep` does, or say in a few words why it cannot be used."""
        if isinstance(photograph, Image.Image):
            if photograph.mode not in MODES:
                return f"pixel mode {photograph.mode} is not 8-bit colour or grey"
            photograph.load()  # which turns a TIFF upright by itself
            upright = ImageOps.exif_transpose(photograph)
            # PNG has neither; the file, too, is turned into RGB, only after it was turned upright.
            upright = upright.convert("RGB") if upright.mode in ("CMYK", "YCbCr") else upright
            buffer = BytesIO()
            upright.save(buffer, "PNG")
            photograph = buffer.getvalue()
        if isinstance(photograph, bytes):
            return prepare_bytes(photograph, self.recipe)
        return prepare_file(str(photograph), self.recipe)

    def of_record(self, data: bytes) -> UInt8[Tensor, "3 size size"]:
        """Return the model's input for the photograph of an MDS record, which is prepared already.

        Raises:
            UserError: It cannot be decoded.
        """
        return eval_transform(data, self.image_size)
