import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from maskedclip_composer.data import photometric
from maskedclip_composer.data.photometric import distort
from tests.data.conftest import jpeg

IMAGE = torch.from_numpy(np.array(Image.open(io.BytesIO(jpeg(0, 40, 32))))).permute(2, 0, 1).contiguous()
OFF = {"jitter": 0.0, "gray": 0.0, "blur": 0.0, "solarize": 0.0}


def distorted(seed: int = 0, **chances: float) -> torch.Tensor:
    return distort(IMAGE, **(OFF | chances), rng=np.random.default_rng(seed))


def test_without_a_chance_nothing_changes():
    assert torch.equal(distorted(), IMAGE)


def test_solarize_is_pils():
    picture = Image.fromarray(IMAGE.permute(1, 2, 0).contiguous().numpy())
    expected = torch.from_numpy(np.array(ImageOps.solarize(picture, threshold=128))).permute(2, 0, 1)
    assert torch.equal(distorted(solarize=1.0), expected)


def test_gray_is_pils_to_a_level_in_all_channels():
    result = distorted(gray=1.0)
    picture = Image.fromarray(IMAGE.permute(1, 2, 0).contiguous().numpy()).convert("L")
    assert torch.equal(result[0], result[1])
    assert torch.equal(result[0], result[2])
    assert (result[0].int() - torch.from_numpy(np.array(picture)).int()).abs().max() <= 1


def test_blur_keeps_the_mean_and_lowers_the_variance():
    results = [distorted(seed, blur=1.0).float() for seed in range(10)]
    for result in results:
        assert (result.mean() - IMAGE.float().mean()).abs() < 2
        assert result.var() <= IMAGE.float().var()
    assert len({float(result.var()) for result in results}) > 5  # sigma is drawn; the smallest leave uint8 as it is


def test_blur_is_a_gaussian_of_the_drawn_width():
    rng = np.random.default_rng(5)
    rng.random(4)  # the chances of the four distortions
    sigma = rng.uniform(0.1, 2.0)
    offsets = np.arange(-6, 7)
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    padded = np.pad(IMAGE[0].numpy().astype(float), 6, mode="reflect")
    rows = np.apply_along_axis(lambda line: np.convolve(line, kernel, "valid"), 0, padded)
    expected = np.apply_along_axis(lambda line: np.convolve(line, kernel, "valid"), 1, rows)
    assert np.abs(distorted(5, blur=1.0)[0].numpy() - expected).max() <= 0.51


@pytest.mark.parametrize("sigma", [0.1, 0.42, 1.0, 2.0])
def test_blur_is_torchvisions_to_a_rounding(sigma):
    expected = v2.functional.gaussian_blur(IMAGE, [13, 13], [sigma, sigma])
    assert (photometric._blur(IMAGE, sigma).int() - expected.int()).abs().max() <= 1


def test_jitter_stays_within_torchvisions_limits_and_its_order_varies(monkeypatch):
    seen: list[tuple[str, float]] = []
    for name in ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue"):
        monkeypatch.setattr(
            photometric.TF, name, lambda image, amount, name=name: (seen.append((name, amount)), image)[1]
        )
    for seed in range(200):
        distorted(seed, jitter=1.0)
    limits = v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    for name in ("brightness", "contrast", "saturation", "hue"):
        amounts = [amount for called, amount in seen if called == f"adjust_{name}"]
        low, high = getattr(limits, name)
        assert len(amounts) == 200
        assert low <= min(amounts) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(amounts) <= high
    orders = {tuple(name for name, _ in seen[start : start + 4]) for start in range(0, len(seen), 4)}
    assert len(orders) == 24


def test_each_distortion_has_its_chance_and_torchs_generator_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    rng = np.random.default_rng(7)
    chances = OFF | {"solarize": 0.25}
    changed = sum(not torch.equal(distort(IMAGE, **chances, rng=rng), IMAGE) for _ in range(1000))
    assert 195 < changed < 305  # 250 +- 4 standard deviations
    first, again = (distorted(1, jitter=1.0, gray=1.0, blur=1.0, solarize=1.0) for _ in range(2))
    assert torch.equal(first, again)
    assert first.dtype == torch.uint8
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("size", [2, 7, 8, 96])
def test_small_crops_can_be_blurred(size):
    image = torch.randint(0, 256, (3, size, size), dtype=torch.uint8)
    result = distort(image, jitter=1.0, gray=0.0, blur=1.0, solarize=1.0, rng=np.random.default_rng(0))
    assert result.shape == image.shape
