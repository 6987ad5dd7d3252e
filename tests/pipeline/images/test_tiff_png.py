"""TIFF and PNG: damage that OpenCV does not report, and chunks for which it prints warnings."""

from __future__ import annotations

import collections
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipeline.images import tiff
from pipeline.images.decode import ImageError, decode_bytes
from pipeline.opencv import quiet
from tests.pipeline.images.image_files import (
    HEIGHT,
    WIDTH,
    by_pillow,
    others,
    pixels,
    read_by_opencv,
    reason,
    tiff_file,
    turned,
)

SOUND = others()


def without_a_byte(data, rng, at, end):
    return data[:at] + data[at + 1 : end] + b"\0" + data[end:]


def with_another_bit(data, rng, at, end):
    return data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :]


def strips(data):
    """(offset, size) of each strip or tile of a TIFF."""
    tags = Image.open(io.BytesIO(data)).tag_v2
    return list(zip(*((tags[324], tags[325]) if 324 in tags else (tags[273], tags[279])), strict=True))


@pytest.mark.parametrize(
    ("name", "damage"),
    [(name, with_another_bit) for name in SOUND if "eflate" in name or name == "TIFF of reversed bits"]
    + [(name, without_a_byte) for name in SOUND if name.endswith(("TIFF tiff_lzw", "TIFF packbits"))],
)
def test_damage_to_the_strips_and_tiles_of_a_tiff_is_found(name, damage, capfd):
    """OpenCV and Pillow read most of these files."""
    data, rng, stored = SOUND[name], np.random.default_rng(0), 0
    parts = strips(data)
    for _ in range(40):
        first, size = parts[int(rng.integers(len(parts)))]
        at = first + int(rng.integers(size // 4, size * 3 // 4))
        with quiet:
            stored += not reason(decode_bytes, damage(data, rng, at, first + size))
    assert stored == 0, stored
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "name", [name for name in SOUND if "TIFF jpeg" in name or name in ("strips TIFF", "tiled JPEG TIFF")]
)
def test_a_jpeg_in_a_tiff_is_checked_as_any_other(name, capfd):
    data, rng, found = SOUND[name], np.random.default_rng(0), collections.Counter()
    tables = Image.open(io.BytesIO(data)).tag_v2.get(347, b"\xff\xd8\xff\xd9")
    parts = strips(data)
    for _ in range(60):
        first, size = parts[int(rng.integers(len(parts)))]
        at = first + int(rng.integers(size // 4, size - 2))
        damaged = data[:at] + rng.integers(0, 256, 8, dtype=np.uint8).tobytes() + data[at + 8 :]
        with quiet:
            by_itself = bool(reason(decode_bytes, tables[:-2] + damaged[first + 2 : first + size]))
            assert bool(reason(decode_bytes, damaged)) == by_itself
        found[by_itself] += 1
    assert found[True] > 15
    assert capfd.readouterr().err == ""


ROWS = pixels().tobytes()


@pytest.mark.parametrize(
    ("compression", "part"),
    [
        (8, zlib.compress(ROWS[:-1])),
        (8, zlib.compress(ROWS + b"x")),
        (8, zlib.compress(ROWS)[:-1]),
        (32773, b"".join(b"\x7f" + ROWS[at : at + 128] for at in range(0, len(ROWS) - 128, 128))),
        (7, by_pillow("JPEG", image=pixels()[:-8])),
        (7, by_pillow("JPEG", image=pixels()[:, :-8])),
    ],
)
def test_a_strip_of_a_tiff_has_all_rows_and_no_more(compression, part):
    with pytest.raises(ImageError):
        decode_bytes(tiff_file([part], compression, {278: [HEIGHT], 262: [6 if compression == 7 else 2]}))


def test_strips_of_a_tiff_are_all_there():
    parts = [zlib.compress(ROWS[: len(ROWS) // 2])]
    with pytest.raises(ImageError):
        decode_bytes(tiff_file(parts, 8, {278: [HEIGHT // 2]}))
    decode_bytes(tiff_file(parts * 2, 8, {278: [HEIGHT // 2]}))


@pytest.mark.parametrize("compression", [5, 8, 32773])
def test_overlapping_strips_of_a_tiff_are_rejected(compression):
    """They would stand for as many bytes as anybody likes."""
    tags = {278: [1], 273: [8] * HEIGHT, 279: [1000] * HEIGHT}
    with pytest.raises(ValueError, match="lie on one another"):
        tiff.check(tiff_file([b"x" * 1000], compression, tags))


def png_chunk(kind, content, wrong=0):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content) ^ wrong)


@pytest.mark.parametrize(
    "chunks",
    [
        png_chunk(b"iCCP", b"x\0\0no profile"),
        png_chunk(b"tEXt", b"a\0b", wrong=1),
        png_chunk(b"sRGB", b"\0") * 2,
        png_chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * (1 << 24))),
    ],
)
def test_chunks_of_a_png_that_no_pixel_depends_on_are_ignored(chunks, capfd):
    data = SOUND[".png"]
    with quiet:
        image = decode_bytes(data[:33] + chunks + data[33:])  # after IHDR
    assert np.array_equal(image, read_by_opencv(data))
    assert capfd.readouterr().err == ""


def test_a_rotation_in_a_png_is_applied():
    data = by_pillow("PNG", exif=turned())
    assert np.array_equal(decode_bytes(data), read_by_opencv(data))
    assert decode_bytes(data).shape == (WIDTH, HEIGHT, 3)


def test_a_damaged_png_prints_nothing(capfd):
    data = SOUND[".png"]
    for at in range(16, len(data) - 12, 50):
        with quiet, pytest.raises(ImageError):
            decode_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
    assert capfd.readouterr().err == ""
