import io

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from maskedclip_composer.data import crops
from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.crops import CropConfig, Crops, draw_crops
from maskedclip_composer.data.transforms import crop_box, random_view
from maskedclip_composer.errors import UserError
from tests.data.conftest import jpeg
from tests.data.test_loader import PATCHES, assert_equal, build

PHOTO = np.asarray(Image.open(io.BytesIO(jpeg(0, 301, 263))))
QUIET = {"jitter": 0.0, "gray": 0.0, "distortion": False}
SMALL = {"local_count": 3, "local_size": 16}


def draw(seed: int = 0, **keys) -> tuple[torch.Tensor, Crops]:
    rng = np.random.default_rng(seed)
    first = random_view(PHOTO, 32, min_crop=0.4, flip=0.5, rng=rng)
    return draw_crops(PHOTO, first, CropConfig(**(SMALL | keys)), grid=(4, 4), min_crop=0.4, flip=0.5, rng=rng)


def test_numbers_and_sizes_follow_the_config():
    first, drawn = draw(global_count=3)
    assert first.shape == (3, 32, 32)
    assert drawn.global_crops.shape == (2, 3, 32, 32)
    assert drawn.local_crops.shape == (3, 3, 16, 16)
    assert drawn.block_mask.shape == (3, 16)
    assert first.dtype == drawn.global_crops.dtype == drawn.local_crops.dtype == torch.uint8
    assert drawn.block_mask.dtype == torch.bool
    assert first.is_contiguous()


def test_without_distortions_views_are_random_crops_of_the_photograph():
    first, drawn = draw(5, **QUIET)
    rng = np.random.default_rng(5)
    assert torch.equal(first, random_view(PHOTO, 32, min_crop=0.4, flip=0.5, rng=rng))
    assert torch.equal(drawn.global_crops[0], random_view(PHOTO, 32, min_crop=0.4, flip=0.5, rng=rng))
    rng.random((2, 4))  # the chances of both global views' distortions
    local = random_view(PHOTO, 16, min_crop=0.05, max_crop=0.32, flip=0.5, rng=rng)
    assert torch.equal(drawn.local_crops[0], local)


def test_local_views_have_their_own_areas():
    boxes = np.array([crop_box(400, 400, 0.05, np.random.default_rng(n), max_area=0.32)[2:] for n in range(500)])
    areas = boxes.prod(axis=1) / 400**2
    assert 0.049 < areas.min() < 0.06
    assert 0.31 < areas.max() < 0.322


def test_each_kind_of_view_has_the_chances_of_byol(monkeypatch):
    """BYOL, appendix B: blur 1.0 and 0.1, solarize 0 and 0.2; DINO blurs half of the local views."""
    chances: list[tuple[float, ...]] = []

    def recording(image, *, jitter, gray, blur, solarize, rng):
        chances.append((jitter, gray, blur, solarize))
        return image

    monkeypatch.setattr(crops, "distort", recording)
    draw(local_count=2)
    assert chances == [(0.8, 0.2, 1.0, 0.0), (0.8, 0.2, 0.1, 0.2), (0.8, 0.2, 0.5, 0.0), (0.8, 0.2, 0.5, 0.0)]
    chances.clear()
    draw(**QUIET)
    assert set(chances) == {(0.0, 0.0, 0.0, 0.0)}


def test_hidden_shares_are_within_their_bounds_and_have_their_chance():
    rng, counts = np.random.default_rng(0), []
    config = CropConfig(**QUIET, local_count=1, local_size=8, mask_probability=0.5, mask_min=0.1, mask_max=0.5)
    small = np.zeros((8, 8, 3), np.uint8)
    first = torch.zeros(3, 8, 8, dtype=torch.uint8)
    for _ in range(500):
        _, drawn = draw_crops(small, first, config, grid=(14, 14), min_crop=1.0, flip=0.0, rng=rng)
        counts += drawn.block_mask.sum(dim=1).tolist()
    hidden = [count for count in counts if count]
    assert 440 < len(hidden) < 560  # 500 +- 4 standard deviations
    assert 20 <= min(hidden) < 25  # 10 % of 196 patches
    assert 93 < max(hidden) <= 98  # 50 %
    assert np.mean(hidden) == pytest.approx(0.3 * 196, abs=5)
    assert not draw(mask_probability=0.0)[1].block_mask.any()
    exact = draw(mask_probability=1.0, mask_min=0.25, mask_max=0.25)[1].block_mask
    assert exact.sum(dim=1).tolist() == [4, 4]


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("global_count", 1, "at least 2"),
        ("local_count", 0, "at least 1"),
        ("local_size", 0, "a positive number of pixels"),
        ("local_min_crop", 0.0, "above 0, at most local_max_crop"),
        ("local_min_crop", 0.5, "above 0, at most local_max_crop"),
        ("local_max_crop", 1.5, "at most 1"),
        ("jitter", 1.1, "a probability"),
        ("gray", -0.1, "a probability"),
        ("mask_probability", -1.0, "a probability"),
        ("mask_min", 0.0, "above 0, at most mask_max"),
        ("mask_max", 1.0, "below 1"),
    ],
)
def test_a_wrong_value_is_named_with_its_remedy(key, value, remedy):
    with pytest.raises(UserError) as caught:
        CropConfig(**{key: value})
    assert f"data.crops.{key} = {value}: must be {remedy}" in str(caught.value)


def test_it_loads_from_a_yaml_and_has_to_fit_the_image():
    given = {"unpaired": {"remote": "/a", "batch_size": 4}, "crops": {"local_size": 64, "distortion": False}}
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), given))
    assert isinstance(config, DataConfig)
    assert config.crops == CropConfig(local_size=64, distortion=False)
    with pytest.raises(UserError, match=r"data.crops.local_size = 96: is larger than the global views"):
        DataConfig(unpaired=StreamConfig(remote="/a", batch_size=4), image_size=64, crops=CropConfig())


def test_a_batch_with_crops_is_what_the_types_promise(sets, tokenizer):
    (first, *_) = build(sets, tokenizer, crops=CropConfig(**SMALL)).dataloader
    for part, count in (("paired", 4), ("unpaired", 6)):
        fields = first[part]
        assert fields["global_crops"].shape == (count, 1, 3, 24, 24)
        assert fields["local_crops"].shape == (count, 3, 3, 16, 16)
        assert fields["block_mask"].shape == (count, 2, PATCHES)
        assert fields["global_crops"].dtype == fields["local_crops"].dtype == torch.uint8
        assert fields["block_mask"].dtype == torch.bool


def test_crops_do_not_move_the_other_draws(sets, tokenizer):
    plain = list(build(sets, tokenizer).dataloader)
    cropped = list(build(sets, tokenizer, crops=CropConfig(**SMALL, **QUIET)).dataloader)
    for batch in cropped:
        for part in batch.values():
            for key in ("global_crops", "local_crops", "block_mask"):
                del part[key]
    assert_equal(plain, cropped)


def test_the_first_global_crop_is_distorted_like_the_others(sets, tokenizer):
    plain = next(iter(build(sets, tokenizer).dataloader))
    cropped = next(iter(build(sets, tokenizer, crops=CropConfig(**SMALL)).dataloader))
    for part in ("paired", "unpaired"):
        assert not torch.equal(plain[part]["image"], cropped[part]["image"])
        assert torch.equal(plain[part]["noise"], cropped[part]["noise"])


def test_crops_are_the_same_with_and_without_workers(sets, tokenizer):
    config = CropConfig(**SMALL)
    alone = list(build(sets, tokenizer, crops=config).dataloader)
    assert_equal(alone, list(build(sets, tokenizer, crops=config, num_workers=1).dataloader))


def test_a_local_crop_of_broken_patches_is_refused(sets, tokenizer):
    with pytest.raises(UserError, match=r"data.crops.local_size = 20: is not divisible by the patch size 8; set it"):
        build(sets, tokenizer, crops=CropConfig(local_size=20))
