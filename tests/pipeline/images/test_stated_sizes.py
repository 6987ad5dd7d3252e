"""A size that a file cannot hold, or that is too large, is found before memory is allocated for it."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
import simplejpeg

from pipeline.images.decode import MAX_PIXELS, ImageError, decode_bytes
from tests.pipeline.images.image_files import (
    HEIGHT,
    WIDTH,
    by_opencv,
    by_pillow,
    jpeg,
    jpegs,
    others,
    read_by_opencv,
    restated,
    tiff_file,
)

SOUND = {**jpegs(), **others()}
PLAIN = jpeg()


def big(layout, *offsets):
    """Gives a sound file's copy another size in px at each of the offsets."""

    def change(data):
        data = bytearray(data)
        for offset in offsets:
            struct.pack_into(
                layout, data, offset if isinstance(offset, int) else data.index(offset[0]) + offset[1], 16000, 16000
            )
        return bytes(data)

    return change


STATING = {
    "GIF": b"GIF89a\x80>\x80>\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;",
    "PNG": big(">II", 16)(SOUND[".png"]),
    "BMP": big("<ii", 18)(SOUND["palette BMP"]),
    "WebP": big("<HH", 26)(by_pillow("WEBP")),
    "JPEG 2000": big(">II", (b"\xff\x4f\xff\x51", 8), (b"\xff\x4f\xff\x51", 24))(SOUND[".jp2"]),
    "AVIF": big(">II", (b"ispe", 8))(SOUND[".avif"]),
    "Sun raster": big(">II", 4)(SOUND[".sr"]),
    "TIFF": tiff_file([b"x"], 5, {256: [16000], 257: [16000], 278: [16000]}),
    "PPM": b"P6 16000 16000 255 x",
    "PBM": b"P4 16000 16000 x",
    "PFM": b"PF 16000 16000 -1.0 x",
    "PAM": b"P7\nWIDTH 16000\nHEIGHT 16000\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\nx",
    "HDR": b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 16000 +X 16000\n\2\2",
}


@pytest.mark.parametrize("name", [name for name in SOUND if name != "plain PPM"])
def test_the_stated_size_is_limited_before_anything_is_decoded(name, monkeypatch):
    assert decode_bytes(SOUND[name], max_pixels=HEIGHT * WIDTH).size == 3 * HEIGHT * WIDTH
    for module, function in ((cv2, "imdecode"), (simplejpeg, "decode_jpeg")):
        monkeypatch.setattr(module, function, None)
    with pytest.raises(ImageError) as error:
        decode_bytes(SOUND[name], max_pixels=HEIGHT * WIDTH - 1)
    assert "px, --max-pixels is 2287" in str(error.value)
    assert {str(HEIGHT), str(WIDTH)} == set(str(error.value).split()[3].split("x"))


def test_a_jpeg_that_is_too_short_for_its_size_is_not_decoded(monkeypatch):
    monkeypatch.setattr(simplejpeg, "decode_jpeg", None)
    for sound in (PLAIN, SOUND["progressive"]):
        data = restated(sound, 16000, 16000)
        with pytest.raises(
            ImageError, match=r"^damaged JPEG \(\d+ bytes\): too short for the 16000x16000 px that it states$"
        ):
            decode_bytes(data)


@pytest.mark.parametrize("name", STATING)
def test_a_file_that_is_too_short_for_its_size_is_not_decoded(name, monkeypatch):
    """A GIF of 35 bytes took 2 GB."""
    monkeypatch.setattr(cv2, "imdecode", None)
    with pytest.raises(
        ImageError, match=r"^damaged file \(\d+ bytes\): too short for the 16000x16000 px that it states$"
    ):
        decode_bytes(STATING[name])


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".avif", ".jp2", ".tiff", ".hdr"])
def test_an_image_of_one_colour_is_long_enough(suffix):
    image = np.full((1400, 1400, 3), 255, np.uint8)
    image = image.astype(np.float32) / 255 if suffix == ".hdr" else image
    assert decode_bytes(by_opencv(suffix, image)).shape == image.shape


def test_a_lossless_webp_and_a_tiff_of_one_colour_are_long_enough():
    image = np.full((1400, 1400, 3), 9, np.uint8)
    for format, options in (("WEBP", {"lossless": True}), ("TIFF", {"compression": "tiff_adobe_deflate"})):
        assert decode_bytes(by_pillow(format, image=image, **options)).shape == image.shape


def test_the_smallest_jpeg_of_an_image_is_long_enough():
    """One colour, with the shortest codes."""
    image = np.full((2048, 2048, 3), 90, np.uint8)
    for options in ({"optimize": True}, {"progressive": True}):
        data = by_pillow("JPEG", image=image, **options)
        assert np.array_equal(decode_bytes(data), read_by_opencv(data))


def test_a_jpeg_of_four_gigapixels_is_not_decoded():
    with pytest.raises(ImageError, match=f"^the image states 65500x65500 px, --max-pixels is {MAX_PIXELS}$"):
        decode_bytes(restated(PLAIN, 65500, 65500))


def test_a_png_whose_chunk_states_more_than_the_file_has_is_not_decoded(monkeypatch):
    """OpenCV would allocate 4 GiB for a file of 750 bytes."""
    monkeypatch.setattr(cv2, "imdecode", None)
    data = SOUND[".png"]
    at = data.index(b"IDAT") - 4
    with pytest.raises(ImageError, match=r"ValueError: a chunk is cut or shifted$"):
        decode_bytes(data[:at] + b"\xff" * 4 + data[at + 4 :])


def test_the_size_in_a_jpeg_2000_is_that_of_its_code_stream():
    data = by_opencv(".jp2")
    at = data.index(b"\xff\x4f\xff\x51") + 8
    with pytest.raises(ImageError, match="the image states 60000x60000 px"):
        decode_bytes(data[:at] + (60000).to_bytes(4, "big") * 2 + data[at + 8 :])


def test_a_large_tile_of_a_small_tiff_counts():
    data = SOUND["RGB TIFF raw"]
    at = data.index(struct.pack("<HHI", 278, 4, 1))  # the tag of the strips becomes that of the tiles' width
    with pytest.raises(ImageError, match=f"the image states {1 << 30}x{HEIGHT} px"):
        decode_bytes(data[:at] + struct.pack("<HHII", 322, 4, 1, 1 << 30) + data[at + 12 :])
