"""Copies in text mode, which turn line feeds into CR LF: found in any format, and not seen in other files."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.images.decode import ImageError, decode_bytes
from tests.pipeline.images.image_files import (
    by_pillow,
    pixels,
    read_by_opencv,
)


@pytest.mark.parametrize(
    ("format", "share"),
    [("JPEG", 0), ("JPEG", 0.7), ("PPM", 0)],  # a PPM has no structure: partial damage cannot be detected
)
def test_a_copy_in_text_mode_is_reported(format, share):
    data = by_pillow(format, image=cv2.resize(pixels(), (200, 300)))
    start = int(share * len(data))
    assert data.count(b"\n", start) > 3
    with pytest.raises(ImageError, match="line feeds became CR LF, as when it is copied in text mode; copy it again"):
        decode_bytes(data[:start] + data[start:].replace(b"\n", b"\r\n"))


@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {"progressive": True, "quality": 100}),
        ("JPEG", {"optimize": True, "quality": 100}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
    ],
)
def test_a_copy_in_text_mode_of_a_tiny_image_with_one_or_two_line_feeds_is_reported(format, options):
    found = 0
    for seed in range(200):
        image = np.random.default_rng(seed).integers(0, 256, (10, 10, 3), dtype=np.uint8)
        data = by_pillow(format, image=cv2.GaussianBlur(image, (0, 0), 2), **options)
        decode_bytes(data)
        if data.count(b"\n") in (1, 2) and b"\r\n" not in data:
            found += 1
            with pytest.raises(ImageError):
                decode_bytes(data.replace(b"\n", b"\r\n"))
    assert found > 3


def test_line_feeds_in_the_tables_prove_that_a_tiny_jpeg_is_no_copy_in_text_mode():
    """The only one of its scan follows a carriage return, by chance: so it is in one tiny image of a thousand."""
    image = np.random.default_rng(465).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    data = cv2.imencode(".jpg", cv2.GaussianBlur(image, (0, 0), 2))[1].tobytes()
    scan = data.index(b"\xff\xda")
    assert data.count(b"\n", scan) == data.count(b"\r\n", scan) == 1
    assert data.count(b"\n", 0, scan) > data.count(b"\r\n", 0, scan)
    assert np.array_equal(decode_bytes(data), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
    with pytest.raises(ImageError):
        decode_bytes(data.replace(b"\n", b"\r\n"))


def test_one_line_feed_after_a_carriage_return_is_no_copy_in_text_mode():
    """Of one colour, 13 10 10."""
    data = by_pillow("BMP", image=np.full((1, 1, 3), (11, 10, 13), np.uint8))
    assert data.count(b"\n") == data.count(b"\r\n") == 1
    assert decode_bytes(data).tolist() == [[[13, 10, 11]]]


@pytest.mark.parametrize("format", ["BMP", "WEBP"])
def test_a_line_feed_behind_an_image_is_no_copy_in_text_mode(format):
    data = by_pillow(format, image=np.full((8, 8, 3), 200, np.uint8)) + b"\r\n"
    assert data.count(b"\n") == 1
    assert np.array_equal(decode_bytes(data), read_by_opencv(data))
