"""What masked image modelling makes of the patches it does not see."""

import torch
from jaxtyping import Float
from torch import Tensor

from maskedclip_composer.callbacks.picture_columns import Cell, Column, Scale, reconstruct
from maskedclip_composer.callbacks.picture_drawing import draw
from maskedclip_composer.models.masking import random_masking
from maskedclip_composer.objectives.mim import pixel_targets
from maskedclip_composer.visualize.drawn import Drawn, Shown, Subject

_READING = (
    "From left to right: the model's input; the patches it may see; what its pixel decoder predicts for every patch; "
    "the prediction with the visible patches pasted in; and the mean squared error of each hidden patch, in the units "
    "of the training loss. Below it stand the error of the photograph and that of a guess which repeats the mean "
    "visible patch: a decoder that has learnt nothing about images is no better than the guess."
)
_LIMITS = (
    "The error is least where there is nothing to see, in the black surround and in smooth retina. Predictions of the "
    "visible patches were never trained. A sharp reconstruction is not what makes features good for classification."
)
_PATCH_NORM = (
    " This model learnt patches that are each normalised by their own mean and deviation (target_norm: patch), so it "
    "predicts no absolute colour: the colours drawn here put the mean and deviation of the true patch back in, which "
    "flatters them. Errors are those of the normalised patches."
)


@torch.no_grad()
def draw_reconstruction(subject: Subject, shown: Shown, *, mask_ratio: float, seed: int) -> Drawn:
    """Draw input, masked input, prediction, prediction with visible patches, and error per patch.

    Args:
        subject: With masked image modelling.
        shown: The photographs.
        mask_ratio: Share of patches that are hidden; some stay visible, and some do not.
        seed: Of the masks.
    """
    assert subject.mim is not None
    encoder, mim = subject.model.branch.image_encoder, subject.mim
    pixels = subject.model.normalise(shown.images)
    rows, columns = encoder.grid
    noise = torch.rand(len(pixels), rows * columns, generator=torch.Generator().manual_seed(seed))
    mask = random_masking(noise.to(pixels.device), mask_ratio)
    prediction = mim.pixel_decoder(encoder(pixels, mask.ids_keep), mask.ids_restore).cpu()
    target = pixel_targets(pixels, encoder.patch_size, mim.target_norm).cpu()
    hidden = mask.mask.cpu()
    statistics = {"mean": encoder.image_mean, "std": encoder.image_std}
    masked, pasted = reconstruct(shown.images, prediction, target, hidden, **statistics)
    _, predicted = reconstruct(shown.images, prediction, target, torch.ones_like(hidden), **statistics)
    errors, own, guess = patch_errors(prediction, target, hidden)
    scale = Scale("mean squared error", 0, max(float(errors.nanquantile(0.98)), 1e-6), has_higher=True)
    captions = [f"error {mine:.3g}, guess {other:.3g}" for mine, other in zip(own, guess, strict=True)]
    found = [
        Column("input", [Cell(view) for view in shown.pixels]),
        Column(f"masked, {hidden.mean():.0%} hidden", [Cell(view) for view in masked]),
        Column("prediction", [Cell(view) for view in predicted]),
        Column("visible patches pasted in", [Cell(view) for view in pasted]),
        Column(
            "error of hidden patches",
            [Cell(*parts) for parts in zip(torch.ones_like(masked), errors, captions, strict=True)],
            scale,
        ),
    ]
    return Drawn(
        name="reconstruction",
        heading="Reconstruction of hidden patches",
        png=draw(found, rows=shown.rows, title=subject.title("reconstruction of hidden patches")),
        reading=_READING,
        limits=_LIMITS + (_PATCH_NORM if mim.target_norm == "patch" else ""),
        numbers={
            "mask_ratio": mask_ratio,
            "seed": seed,
            "target_norm": mim.target_norm,
            "error": own.mean().item(),
            "error_of_mean_visible_patch": guess.mean().item(),
            "error_per_photograph": own.tolist(),
        },
    )


def patch_errors(
    prediction: Float[Tensor, "images patches values"],
    target: Float[Tensor, "images patches values"],
    hidden: Float[Tensor, "images patches"],
) -> tuple[Float[Tensor, "images patches"], Float[Tensor, " images"], Float[Tensor, " images"]]:
    """Return mean squared errors: of each hidden patch, of each image's hidden patches, and of a guess at those.

    The first is NaN at visible patches. The guess is the mean of the image's visible patches.
    """
    visible = (1 - hidden)[:, :, None]
    mean = (target * visible).sum(dim=1, keepdim=True) / visible.sum(dim=1, keepdim=True)
    errors, guesses = ((value - target).square().mean(dim=-1) for value in (prediction, mean))
    hidden_patches = hidden.sum(dim=1)
    own, guess = ((error * hidden).sum(dim=1) / hidden_patches for error in (errors, guesses))
    return errors.masked_fill(hidden == 0, torch.nan), own, guess
