import io
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from maskedclip_composer.data import scaled
from maskedclip_composer.data.pixels import encode_pixels
from maskedclip_composer.data.scaled import scaled_view
from maskedclip_composer.data.transforms import crop_box, cut, decode, random_view
from maskedclip_composer.errors import UserError
from tests.data.conftest import jpeg
from tests.data.test_loader import build

SMOOTH = jpeg(0, 1501, 1203)
VIEW = {"min_crop": 0.2, "flip": 0.5}


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def decoded(monkeypatch) -> list[tuple[int, int]]:
    """The sizes at which photographs were decoded."""
    sizes: list[tuple[int, int]] = []
    original = simplejpeg.decode_jpeg

    def recording(*arguments, **options):
        pixels = original(*arguments, **options)
        sizes.append(pixels.shape[:2])
        return pixels

    monkeypatch.setattr(scaled.simplejpeg, "decode_jpeg", recording)
    return sizes


@pytest.mark.parametrize("size", [31, 150, 224])
def test_only_as_much_is_decoded_as_leaves_the_crop_the_size_of_the_view(decoded, size):
    factors = Counter()
    for seed in range(30):
        box = crop_box(1203, 1501, 0.2, generator(seed))
        scaled_view(SMOOTH, size, **VIEW, rng=generator(seed))
        factor = round(1203 / decoded[-1][0])
        assert decoded[-1] == (-(-1203 // factor), -(-1501 // factor))
        assert factor == max(f for f in (1, 2, 4, 8) if f == 1 or min(box[2:]) >= f * size)
        cut_height, cut_width = scaled._shrunk(box, factor)[2:]
        assert min(cut_height, cut_width) >= min(size, *box[2:])
        factors[factor] += 1
    assert len(factors) > 1 or size == 31


def exact_views(data: bytes, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The view of `random_view`, and the one of the region that lies on the grid of the small photograph."""
    pixels = decode(data)
    box = crop_box(*pixels.shape[:2], VIEW["min_crop"], generator(seed))
    factor = next((f for f in (8, 4, 2) if min(box[2:]) >= f * size), 1)
    top, left, height, width = (factor * edge for edge in scaled._shrunk(box, factor))
    rng = generator(seed)
    crop_box(*pixels.shape[:2], VIEW["min_crop"], rng)
    aligned = cut(pixels, (top, left, height, width), size, flip=VIEW["flip"], rng=rng)
    return random_view(pixels, size, **VIEW, rng=generator(seed)), aligned


def differences(data: bytes, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    view = scaled_view(data, size, **VIEW, rng=generator(seed)).int()
    return tuple((view - exact.int()).abs().float() for exact in exact_views(data, size, seed))


def test_of_a_smooth_photograph_it_is_the_exact_view_moved_by_half_a_pixel_at_most():
    for seed in range(12):
        whole, aligned = differences(SMOOTH, 64, seed)
        assert aligned.mean() < 0.5
        assert aligned.max() <= 3
        view = exact_views(SMOOTH, 64, seed)[0].float()
        steps = view.diff(dim=1).abs().max(), view.diff(dim=2).abs().max()
        assert whole.max() <= 3 + sum(steps) / 2
        assert whole.mean() < 2


@pytest.mark.parametrize("kind", ["small", "png", "pixels", "grey"])
def test_what_cannot_be_halved_is_the_exact_view(kind):
    photograph = Image.open(io.BytesIO(jpeg(3, 301, 263)))
    buffer = io.BytesIO()
    if kind in ("png", "grey"):
        photograph.convert("L" if kind == "grey" else "RGB").save(buffer, "JPEG" if kind == "grey" else "PNG")
    data = {"small": jpeg(3, 301, 263), "pixels": encode_pixels(np.asarray(photograph))}.get(kind, buffer.getvalue())
    for seed in range(5):
        expected = random_view(decode(data), 200, **VIEW, rng=generator(seed))
        assert torch.equal(scaled_view(data, 200, **VIEW, rng=generator(seed)), expected)


@pytest.mark.parametrize("data", [SMOOTH[:-300], SMOOTH[:20], b"\xff\xd8\xff", b"nothing"])
def test_an_unreadable_photograph_is_named(data):
    with pytest.raises(UserError, match=r"ODIR: 3\.jpg: cannot be decoded"):
        scaled_view(data, 32, **VIEW, rng=generator(0), name="ODIR: 3.jpg")


def test_the_loader_draws_everything_else_alike(tmp_path, write_set, tokenizer, decoded):
    edit = {n: {"image": jpeg(n, 220, 200), "width": 220, "height": 200} for n in range(8)}
    folder = write_set(tmp_path / "paired", "paired", 8, edit=edit, size_limit=1 << 20)
    exact, small = (list(build({"paired": folder}, tokenizer, decode=way).dataloader) for way in ("exact", "scaled"))
    assert len(exact) == len(small) == 2
    assert {height for height, _ in decoded} > {200}
    for one, other in zip(exact, small, strict=True):
        for name in one["paired"].keys() - {"image"}:
            assert torch.equal(one["paired"][name], other["paired"][name])
        difference = (one["paired"]["image"].int() - other["paired"]["image"].int()).abs()
        assert 0 < difference.float().mean() < 4


@pytest.mark.real_data
def test_of_real_photographs_it_differs_at_edges_alone():
    folder = os.environ.get("FUNDUS_DATA")
    if not folder:
        pytest.skip("FUNDUS_DATA does not name the folder of photographs")
    files = sorted(f for f in Path(folder, "prep_samples").rglob("*") if f.suffix.lower() in (".jpg", ".jpeg"))
    large = [data for data in (file.read_bytes() for file in files) if simplejpeg.decode_jpeg_header(data)[0] > 900]
    assert len(large) > 5
    whole, aligned = [], []
    for data in large:
        for seed in range(4):
            first, second = differences(data, 224, seed)
            whole.append(first)
            aligned.append(second)
    # Grey levels of 255: mean of a view, and the thousandth part that differs most.
    assert np.mean([view.mean() for view in whole]) < 1
    assert max(view.mean() for view in whole) < 2.5
    assert np.mean([view.mean() for view in aligned]) < 0.6
    assert max(view.mean() for view in aligned) < 1.5
    assert max(view.quantile(0.999) for view in aligned) < 30
    assert max(view.max() for view in aligned) < 60
