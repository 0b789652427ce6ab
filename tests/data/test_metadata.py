"""What cameras and clinics write beside the pixels is in nothing that a conversion writes."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from data_prep.photograph import Photograph, prepare
from maskedclip_composer.data.metadata import strip_metadata
from maskedclip_composer.data.photograph import Recipe
from tests.data_prep.drawing import retina, run, samples, tree, write_csv

WHO = b"Jane Doe 1957-03-12"
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>' + WHO + b"</rdf:RDF></x:xmpmeta>"


def exif() -> bytes:
    """Name, place, time, serial number and a thumbnail."""
    data = Image.Exif()
    data[0x010E] = data[0x013B] = data[0xC62F] = WHO.decode()
    data.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 13.0), 3: "E", 4: (11.0, 34.0, 31.0), 29: WHO.decode()})
    data.get_ifd(0x8769)[0x9286] = WHO
    return data.tobytes()


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg(**options: object) -> bytes:
    buffer = io.BytesIO()
    retina().save(buffer, "JPEG", quality=88, **options)
    return buffer.getvalue()


def with_everything() -> bytes:
    """A JPEG with all that a file may carry, before, between and after what decoding needs."""
    whole = jpeg(exif=exif(), comment=WHO, icc_profile=WHO * 20, xmp=XMP)
    jfif = b"JFIF\0\x01\x02\x00\x00\x01\x00\x01\x02\x03" + WHO[:18]  # a thumbnail of 2 x 3 pixels
    extended = b"JFXX\0\x10" + WHO
    photoshop = b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(WHO)) + WHO  # IPTC
    others = b"".join(segment(marker, WHO) for marker in (*range(0xE1, 0xF0), 0xFE))
    added = segment(0xE0, jfif) + segment(0xE0, extended) + segment(0xED, photoshop) + others
    at = whole.index(b"\xff\xdb")
    between = whole.rindex(b"\xff\xda")
    return whole[:2] + added + whole[at:between] + segment(0xFE, WHO) + whole[between:] + WHO + jpeg(comment=WHO)


def files() -> dict[str, bytes]:
    text = PngImagePlugin.PngInfo()
    text.add_text("Patient", WHO.decode())
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())

    def saved(name: str, **options: object) -> bytes:
        buffer = io.BytesIO()
        retina().save(buffer, name, exif=exif(), **options)
        return buffer.getvalue()

    return {
        "everything.jpg": with_everything(),
        "progressive.jpg": jpeg(progressive=True, exif=exif(), comment=WHO),
        "png.png": saved("PNG", pnginfo=text, icc_profile=WHO * 9),
        "tiff.tif": saved("TIFF", icc_profile=WHO * 9),
        "webp.webp": saved("WEBP", lossless=True, xmp=XMP, icc_profile=WHO * 9),
    }


def markers(data: bytes) -> list[int]:
    """The markers of a JPEG up to its scan, and that nothing follows its end."""
    at, found = 2, []
    while (marker := data[at + 1]) != 0xDA:
        found.append(marker)
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    assert data.endswith(b"\xff\xd9")
    assert data.count(b"\xff\xd9") == 1
    return found


@pytest.mark.parametrize("options", [["--size", "0", "--no-crop"], ["--size", "64"], ["--encoding", "raw"]])
def test_nothing_but_pixels_is_written(tmp_path, options):
    (tmp_path / "images").mkdir()
    for name, data in files().items():
        assert WHO in data or name == "png.png"  # which compresses its profile
        (tmp_path / "images" / name).write_bytes(data)
    table = write_csv(tmp_path / "t.csv", [{"image": name} for name in files()])
    arguments = ("--csv", table, "--images", tmp_path / "images", "--out", tmp_path / "out", "--workers", "1")
    assert run("manifest", *arguments, *options) == 0
    for name, data in tree(tmp_path / "out").items():
        assert WHO not in data, name
        assert WHO[:8] not in data, name
        assert b"Exif" not in data, name
        assert b"adobe" not in data, name
    sheet = (tmp_path / "out" / "contact_sheet.jpg").read_bytes()
    stored = [sample["image"] for sample in samples(tmp_path / "out")]
    assert len(stored) == len(files())
    for data in [sheet, *(data for data in stored if "raw" not in options)]:
        assert set(markers(data)) <= {0xE0, 0xDB, 0xC0, 0xC4}  # JFIF, tables, frame
        opened = Image.open(io.BytesIO(data))
        assert not opened.getexif()
        assert set(opened.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi"}


def test_a_file_with_everything_is_stored_verbatim_without_it(tmp_path):
    (tmp_path / "a.jpg").write_bytes(with_everything())
    result = prepare(str(tmp_path / "a.jpg"), Recipe(size=0, crop=False))
    assert isinstance(result, Photograph)
    assert result.verbatim
    assert result.data == jpeg().replace(b"JFIF\0\x01\x01", b"JFIF\0\x01\x02")  # the version that was given
    assert np.array_equal(Image.open(io.BytesIO(result.data)), Image.open(io.BytesIO(with_everything())))


@pytest.mark.parametrize("marker", [0xDC, 0xC9, 0xF0, 0x02, 0xCC])
def test_a_segment_that_is_not_known_is_not_kept(marker):
    """Decoders pass over some of them, whatever they hold."""
    whole = jpeg()
    assert strip_metadata(whole) == whole
    assert strip_metadata(whole[:2] + segment(marker, WHO) + whole[2:]) is None


def bytes_between_scan_and_end(path: Path) -> None:
    whole = jpeg()
    path.write_bytes(whole[:-2] + WHO + whole[-2:])


def half_of_the_scan(path: Path) -> None:
    whole = jpeg()
    at = whole.rindex(b"\xff\xda")
    path.write_bytes(whole[: (at + len(whole)) // 2] + b"\xff\xd9")


def test_bytes_hidden_behind_the_pixels_are_not_kept(tmp_path):
    bytes_between_scan_and_end(tmp_path / "a.jpg")
    result = prepare(str(tmp_path / "a.jpg"), Recipe(size=0, crop=False))
    assert isinstance(result, Photograph)
    assert not result.verbatim
    assert WHO not in result.data
    assert (result.width, result.height) == (160, 120)


def test_a_photograph_whose_lower_half_is_missing_is_quarantined(tmp_path):
    half_of_the_scan(tmp_path / "a.jpg")
    assert Image.open(tmp_path / "a.jpg").convert("RGB").size == (160, 120)  # PIL makes it grey without a word
    assert "truncated or damaged" in prepare(str(tmp_path / "a.jpg"), Recipe(size=0, crop=False))
