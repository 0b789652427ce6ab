import io

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from maskedclip_composer.data import crops
from maskedclip_composer.data.config import DataConfig, StreamConfig
from maskedclip_composer.data.crops import CropConfig, Crops, draw_crops
from maskedclip_composer.data.transforms import random_view
from maskedclip_composer.errors import UserError
from tests.data.conftest import jpeg
from tests.data.test_loader import PATCHES, assert_equal, build

PHOTO = np.asarray(Image.open(io.BytesIO(jpeg(0, 301, 263))))
QUIET = {"jitter": 0.0, "gray": 0.0, "blur": [0.0, 0.0, 0.0], "solarize": 0.0}
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


def test_without_distortions_crops_are_random_views_of_the_photograph():
    first, drawn = draw(5, **QUIET)
    rng = np.random.default_rng(5)
    assert torch.equal(first, random_view(PHOTO, 32, min_crop=0.4, flip=0.5, rng=rng))
    rng.random(4)  # the chances of the first crop's distortions, which stays as it is
    assert torch.equal(drawn.global_crops[0], random_view(PHOTO, 32, min_crop=0.4, flip=0.5, rng=rng))
    rng.random(4)
    local = random_view(PHOTO, 16, min_crop=0.05, max_crop=0.32, flip=0.5, rng=rng)
    assert torch.equal(drawn.local_crops[0], local)


def test_local_crops_have_their_own_areas(monkeypatch):
    boxes: list[tuple[int, int]] = []
    original = crops.random_view

    def recording(image, size, *, min_crop, flip, rng, max_crop=1.0):
        boxes.append((min_crop, max_crop))
        return original(image, size, min_crop=min_crop, flip=flip, rng=rng, max_crop=max_crop)

    monkeypatch.setattr(crops, "random_view", recording)
    draw(local_min_crop=0.1, local_max_crop=0.2)
    assert boxes == [(0.4, 1.0), *[(0.1, 0.2)] * 3]


def test_each_kind_of_crop_has_its_own_chances():
    config = CropConfig(blur=[1.0, 0.1, 0.5], solarize=0.3)
    assert [config.distortions(kind).blur for kind in range(3)] == [1.0, 0.1, 0.5]
    assert [config.distortions(kind).solarize for kind in range(3)] == [0.0, 0.3, 0.0]


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
    least = draw(mask_probability=1.0, mask_min=0.01, mask_max=0.02)[1].block_mask  # of 16 patches
    assert least.sum(dim=1).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("global_count", 1, "2 or more"),
        ("local_count", 0, "1 or more"),
        ("local_size", 4, "8 pixels or more"),
        ("local_min_crop", 0.0, "above 0 and at most 1"),
        ("local_max_crop", 0.01, "at least local_min_crop = 0.05"),
        ("jitter", 1.1, "a probability"),
        ("gray", -0.1, "a probability"),
        ("blur", [0.5], "three probabilities"),
        ("blur", [0.5, 2.0, 0.1], "three probabilities"),
        ("solarize", 2.0, "a probability"),
        ("mask_probability", -1.0, "a probability"),
        ("mask_min", 0.0, "above 0 and below 1"),
        ("mask_max", 1.0, "at least mask_min = 0.1 and below 1"),
    ],
)
def test_a_wrong_value_is_named_with_its_remedy(key, value, remedy):
    with pytest.raises(UserError) as caught:
        CropConfig(**{key: value})
    assert f"data.crops.{key} = {value}: must be {remedy}" in str(caught.value)


def test_it_loads_from_a_yaml_and_has_to_fit_the_image():
    given = {"unpaired": {"remote": "/a", "batch_size": 4}, "crops": {"local_size": 64, "blur": [1, 0, 0.5]}}
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(DataConfig), given))
    assert isinstance(config, DataConfig)
    assert config.crops == CropConfig(local_size=64, blur=[1.0, 0.0, 0.5])
    with pytest.raises(UserError, match=r"data.crops.local_size = 96: is larger than the global crops"):
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
