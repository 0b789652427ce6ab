import io

import pytest
from PIL import Image

from maskedclip_composer.data.limits import FORMATS, LONGEST, MOST_SCANS, check_jpeg
from maskedclip_composer.data.transforms import decode
from maskedclip_composer.errors import UserError
from tests.fuzz.pictures import hostile, of_many_scans, resized, saved


def test_a_jpeg_within_the_limits_passes():
    image = Image.new("RGB", (40, 30))
    for options in ({}, {"progressive": True}, {"restart_marker_rows": 1}):
        assert check_jpeg(saved(image, "JPEG", **options)) == (30, 40)


@pytest.mark.parametrize("behind", [b"", b"\xff\xda" * 200])
def test_scans_are_counted_up_to_the_end_of_the_picture(behind):
    """Phones append films, in which the bytes of a marker occur by chance."""
    scans_of_the_encoder = saved(Image.new("RGB", (16, 16)), "JPEG", progressive=True).count(b"\xff\xda")
    most = MOST_SCANS - scans_of_the_encoder + 1
    assert check_jpeg(of_many_scans(most, 64) + behind) == (64, 64)
    with pytest.raises(ValueError, match="more than 100 scans"):
        check_jpeg(of_many_scans(most + 1, 64) + behind)
    baseline = saved(Image.new("RGB", (16, 16)), "JPEG", comment=b"\xff\xda" * 200)
    assert check_jpeg(baseline + behind) == (16, 16)


def test_what_stands_in_a_segment_is_not_counted():
    """Thumbnails are JPEGs in a JPEG."""
    assert check_jpeg(saved(Image.new("RGB", (16, 16)), "JPEG", progressive=True, comment=b"\xff\xda" * 200)) == (
        16,
        16,
    )


@pytest.mark.parametrize(
    ("width", "height", "said"), [(20_000, 20_000, "more than"), (16, 16 * LONGEST + 1, "a strip")]
)
def test_sizes_that_no_photograph_has_are_refused_before_decoding(width, height, said):
    with pytest.raises(UserError, match=f"img: cannot be decoded .*{said}"):
        decode(resized(saved(Image.new("RGB", (16, 16)), "JPEG"), width, height), name="img")
    if width < 1000:
        with pytest.raises(UserError, match=said):
            decode(saved(Image.new("L", (width, height)), "PNG"))


def test_only_formats_of_photographs_are_opened(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("Ghostscript was run"))
    with pytest.raises(UserError, match="cannot identify"):
        decode(hostile()["PostScript"])
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "TGA")
    Image.open(buffer)  # PIL would
    with pytest.raises(UserError, match="cannot identify"):
        decode(buffer.getvalue())
    for name in FORMATS:
        assert decode(saved(Image.new("RGB", (8, 8)), name)).shape == (8, 8, 3)
