import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from composer.core import Time, Timestamp
from PIL import Image

from maskedclip_composer.callbacks import picture_columns
from maskedclip_composer.callbacks.config import TrackingConfig
from maskedclip_composer.callbacks.picture_columns import Step, columns, reconstruct, unpatchify
from maskedclip_composer.callbacks.picture_drawing import draw
from maskedclip_composer.callbacks.pictures import is_due
from maskedclip_composer.models.vit import IMAGE_MEAN, IMAGE_STD
from maskedclip_composer.objectives.mim import patchify
from tests.callbacks.tiny import TinyModel, make_trainer, run

PATCH, SIDE = 8, 4
SIZE = PATCH * SIDE


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, SIZE, SIZE), dtype=torch.uint8)


def normalise(images: torch.Tensor, mean=IMAGE_MEAN, std=IMAGE_STD) -> torch.Tensor:
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (mean, std))
    return (images.float() / 255 - mean) / std


def as_bytes(images: torch.Tensor) -> torch.Tensor:
    return (images * 255).round().to(torch.uint8)


def patch(images: torch.Tensor, image: int, index: int) -> torch.Tensor:
    top, left = index // SIDE * PATCH, index % SIDE * PATCH
    return images[image, :, top : top + PATCH, left : left + PATCH]


@pytest.mark.parametrize("target_norm", ["none", "patch"])
def test_visible_patches_are_the_input_and_removed_ones_the_prediction(images, target_norm):
    truth = torch.randint(0, 256, images.shape, dtype=torch.uint8)  # what the model "predicts"
    mask = (torch.arange(SIDE**2) % 3 != 0).float().expand(2, -1)
    target, prediction = patchify(normalise(images), PATCH), patchify(normalise(truth), PATCH)
    if target_norm == "patch":
        mean, std = target.mean(-1, keepdim=True), (target.var(-1, keepdim=True) + 1e-6).sqrt()
        target, prediction = (target - mean) / std, (prediction - mean) / std

    masked, reconstruction = (as_bytes(view) for view in reconstruct(images, prediction, target, mask))
    for image in range(2):
        for index in range(SIDE**2):
            removed = mask[image, index] == 1
            assert torch.equal(patch(reconstruction, image, index), patch(truth if removed else images, image, index))
            grey = torch.full((3, PATCH, PATCH), 128, dtype=torch.uint8)
            assert torch.equal(patch(masked, image, index), grey if removed else patch(images, image, index))


def test_a_models_own_mean_and_deviation_are_undone(images):
    own = {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.2, 0.1)}
    truth = torch.randint(0, 256, images.shape, dtype=torch.uint8)
    target, prediction = (patchify(normalise(part, **own), PATCH) for part in (images, truth))
    _, reconstruction = reconstruct(images, prediction, target, torch.ones(2, SIDE**2), **own)
    assert torch.equal(as_bytes(reconstruction), truth)


def test_the_runs_mean_and_deviation_reach_the_pictures(tmp_path: Path, monkeypatch):
    used = []
    monkeypatch.setattr(
        picture_columns, "reconstruct", lambda *args, **options: used.append(options) or reconstruct(*args, **options)
    )
    config = TrackingConfig(mlflow=False, picture_interval="1ba")
    own = {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.25, 0.25, 0.25)}
    run(make_trainer(tmp_path, config, duration="1ba", **own)[0])
    (options,) = used
    assert (options["mean"], options["std"]) == (own["image_mean"], own["image_std"])


def test_predictions_out_of_range_are_clipped(images):
    target = patchify(normalise(images), PATCH)
    _, reconstruction = reconstruct(images, target * 100, target, torch.ones(2, SIDE**2))
    assert reconstruction.min() == 0
    assert reconstruction.max() == 1


def test_unpatchify_inverts_patchify(images):
    assert torch.equal(unpatchify(patchify(images, PATCH), PATCH, SIZE), images)


def test_the_heat_map_shows_each_patch_at_its_place(images):
    target = torch.randn(1, SIDE**2, 6)
    prediction = -target
    prediction[0, 1] = target[0, 1]  # row 0, column 1 agrees, the others are opposite
    outputs = {"mfd": {"prediction": prediction, "target": target}}
    png = draw(columns(Step(torch.zeros_like(images[:1]), outputs, torch.tensor([0]))), rows=["paired 0"], title="t")
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
    yellow = np.abs(pixels - np.array([0.65 * 253, 0.65 * 231, 0.65 * 37])).max(axis=-1) < 6
    purple = np.abs(pixels - np.array([0.65 * 68, 0.65 * 1, 0.65 * 84])).max(axis=-1) < 6
    tall, wide = np.nonzero(purple | yellow)
    top, left, side = tall.min(), wide.min(), (np.ptp(tall) + 1) / SIDE
    tall, wide = np.nonzero(yellow)
    assert (np.median(tall) - top) // side == 0
    assert (np.median(wide) - left) // side == 1
    assert np.ptp(tall) == pytest.approx(side, abs=2)
    assert np.ptp(wide) == pytest.approx(side, abs=2)


@pytest.mark.parametrize(
    ("interval", "duration", "due"),
    [
        ("1ep", "2ep", [3, 6]),
        ("2ep", "3ep", [6, 9]),
        ("2ba", "2ep", [2, 4, 6]),
        ("4ba", "5ba", [4, 5]),
        ("1ep", "4ba", [3, 4]),
        ("100ba", "24sp", [6]),
    ],
)
def test_a_picture_is_due_at_intervals_and_at_the_end(interval, duration, due):
    now, found = Timestamp(), []
    while now < duration:
        now = now.to_next_batch(samples=4)
        state = SimpleNamespace(
            timestamp=now, dataloader_len=Time.from_batch(3), max_duration=Time.from_input(duration)
        )
        if is_due(state, Time.from_input(interval)):  # pyright: ignore[reportArgumentType]
            found.append(now.batch.value)
        if now.batch_in_epoch == Time.from_batch(3):
            now = now.to_next_epoch()
    assert found == due


@pytest.mark.parametrize(
    ("objectives", "width_in_columns"),
    [(("mim", "lg_clip", "mfd"), 4), (("mim",), 3), (("mfd",), 2), (("lg_clip",), 0)],
)
def test_pictures_are_drawn_for_the_objectives_that_are_on(tmp_path: Path, objectives, width_in_columns):
    config = TrackingConfig(mlflow=False, picture_interval="2ba", num_pictures=3)
    run(make_trainer(tmp_path, config, duration="1ep", model=TinyModel(objectives))[0])
    pictures = sorted((tmp_path / "tiny" / "pictures").glob("*"))
    if width_in_columns == 0:
        assert pictures == []
        return
    assert [path.name for path in pictures] == ["ba0000002.png", "ba0000003.png"]
    width, height = Image.open(pictures[0]).size
    assert width == pytest.approx((2.6 * width_in_columns + 1.2) * 110, abs=1)
    assert height == pytest.approx((2.6 * 3 + 0.7) * 110, abs=1)
