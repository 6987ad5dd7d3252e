"""Decoding: stored is what OpenCV and Pillow read without losing a pixel; anything else is an error with a reason."""

from __future__ import annotations

import io
import os

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps, features

from pipeline.images.decode import ImageError, decode, decode_bytes, read_regular
from pipeline.images.lookup import IMAGE_SUFFIXES
from tests.pipeline.images.image_files import (
    HEIGHT,
    WIDTH,
    after_start,
    by_opencv,
    by_pillow,
    jpeg,
    jpegs,
    others,
    pixels,
    read_by_opencv,
    reason,
    segment,
    turned,
)

SOUND, PLAIN = {**jpegs(), **others()}, jpeg()
FOREIGN = {
    b"\n<!DOCTYPE html><html>404</html>": "a web page or XML, not an image; download it again",
    b"<?xml version='1.0'?><Error/>": "a web page or XML, not an image; download it again",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "a pointer of Git LFS, not the image; run git lfs pull",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic": "HEIC, which OpenCV does not read; convert it to JPEG or PNG",
}


@pytest.mark.parametrize("data", FOREIGN, ids=["page", "XML", "LFS", "HEIC"])
def test_what_is_often_met_in_place_of_an_image_is_named(data):
    assert reason(decode_bytes, data) == f"cannot be decoded ({len(data)} bytes): {FOREIGN[data]}"


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_file_is_decoded_as_by_opencv(name):
    expected = read_by_opencv(SOUND[name])
    assert expected is not None
    assert np.array_equal(decode_bytes(SOUND[name]), expected)


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_extension_that_counts_as_an_image_is_decoded(suffix):
    others = {".jfif": ".jpg", ".mpo": ".jpg", ".pxm": ".ppm", ".j2k": ".jp2", ".j2c": ".jp2"}
    writer = others.get(suffix, suffix)
    data = by_opencv(writer, pixels(channels=1) if writer in (".pgm", ".pbm") else None)
    if suffix in (".j2k", ".j2c"):
        data = data[data.index(b"\xff\x4f\xff\x51") :]
    assert decode_bytes(data).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_rotation_of_an_avif_is_applied(orientation):
    """OpenCV leaves it out; Pillow hands it on as an EXIF tag."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = by_pillow("AVIF", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode_bytes(data), np.asarray(upright)[..., ::-1])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", [name for name in others() if name != "plain PPM"])
def test_another_format_that_is_cut_is_rejected(name):
    data = SOUND[name]
    for end in (10, len(data) // 2, len(data) - 30):
        with pytest.raises(ImageError):
            decode_bytes(data[:end])


def test_what_only_pillow_finds_damaged_is_rejected():
    """OpenCV does not notice that a value is larger than the header allows."""
    data = SOUND["plain PPM"].replace(b"20", b"300")
    assert read_by_opencv(data) is not None
    with pytest.raises(ImageError, match="Channel value too large"):
        decode_bytes(data)


@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
@pytest.mark.parametrize("maximum", [1, 100, 255, 1023, 4095, 65535])
def test_the_largest_value_of_a_pnm_is_white(kind, maximum):
    """OpenCV scales 255 and 65535 only: an image of 10 bits would be nearly black."""
    shape = (20, 30, 3) if kind in ("P3", "P6") else (20, 30)
    values = np.random.default_rng(0).integers(0, maximum + 1, shape)
    binary = values.astype(">u2" if maximum > 255 else "u1").tobytes()
    text = b" ".join(b"%d" % value for value in values.ravel().tolist()) + b"\n"
    data = b"%s\n# 30 20\n30 20\n%d\n" % (kind.encode(), maximum) + (text if kind in ("P2", "P3") else binary)
    truth = np.broadcast_to((values * 255 / maximum).reshape(20, 30, -1), (20, 30, 3))
    assert np.abs(decode_bytes(data)[..., ::-1] - truth).max() <= 1


def test_a_pam_with_an_alpha_channel_is_refused():
    """OpenCV makes pixels of memory that it has not set."""
    data = SOUND[".pam"].replace(b"DEPTH 3", b"DEPTH 4").replace(b"ENDHDR", b"TUPLTYPE RGB_ALPHA\nENDHDR")
    with pytest.raises(ImageError, match="it has 4 channels, expected 1 or 3"):
        decode_bytes(data + bytes(HEIGHT * WIDTH))


@pytest.mark.parametrize("options", [{}, {"exif": turned()}])
def test_zeros_in_place_of_the_rest_of_a_webp_are_no_data(options):
    """OpenCV and Pillow read it: the length is as stated."""
    data = by_pillow("WEBP", image=cv2.resize(pixels(), (200, 300)), **options)
    for start in (len(data) // 2, len(data) * 3 // 4):
        with pytest.raises(ImageError, match="a part of its data is zeros"):
            decode_bytes(data[:start] + bytes(100) + data[start + 100 :])


def test_another_largest_value_of_a_pam_is_refused():
    for maximum in (1, 100):
        data = SOUND[".pam"].replace(b"MAXVAL 255", b"MAXVAL %d" % maximum)
        assert data != SOUND[".pam"]
        with pytest.raises(ImageError, match=f"its largest value is {maximum}, expected 255 or 65535"):
            decode_bytes(data)


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "huge.jpg"
    with open(path, "wb") as stream:
        stream.write(PLAIN)
        stream.truncate(20 << 30)
    monkeypatch.setattr(os, "read", None)
    with pytest.raises(ImageError, match=r"^the file has 21,474,836,480 bytes; at most 1,073,741,824 are read"):
        decode(path)


def test_a_file_that_grows_is_not_read_beyond_the_limit(tmp_path, monkeypatch):
    path, read = tmp_path / "growing.jpg", os.read
    path.write_bytes(b"x" * 10)

    def read_later(handle, count):
        path.write_bytes(b"x" * 1000)
        return read(handle, count)

    monkeypatch.setattr(os, "read", read_later)
    with pytest.raises(ImageError, match=r"^the file has 101 bytes; at most 100 are read"):
        read_regular(path, 100)


def test_a_file_is_read_however_few_pixels_are_allowed(tmp_path):
    path = tmp_path / "comments.jpg"
    path.write_bytes(after_start(PLAIN, segment(0xFE, b"x" * 65_000) * 3))
    assert decode(path, max_pixels=HEIGHT * WIDTH).shape == (HEIGHT, WIDTH, 3)
    assert len(read_regular(path)) > 4 * HEIGHT * WIDTH


@pytest.mark.parametrize(
    "error", [KeyError(7), cv2.error("bad"), RuntimeError("bad"), ZeroDivisionError(), SyntaxError("x")]
)
@pytest.mark.parametrize("name", [".png", "CMYK"])
def test_no_exception_of_a_decoder_gets_through(monkeypatch, error, name):
    def failing(*_):
        raise error

    monkeypatch.setattr(cv2, "imdecode", failing)
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode_bytes(SOUND[name])


def test_a_lack_of_memory_is_not_a_bad_image(monkeypatch):
    no_memory = cv2.error("no memory")
    no_memory.code, no_memory.err = cv2.Error.StsNoMem, "Failed to allocate 7 bytes"
    for error in (MemoryError(), no_memory, ValueError("Insufficient memory (case 4)")):

        def failing(*_, error=error):
            raise error

        monkeypatch.setattr(cv2, "imdecode", failing)
        monkeypatch.setattr(simplejpeg, "decode_jpeg", failing)
        with pytest.raises(MemoryError):
            decode_bytes(SOUND[".png"] if error is no_memory else PLAIN)
