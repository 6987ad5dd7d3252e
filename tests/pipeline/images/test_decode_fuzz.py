"""Thousands of damaged files of every format, with OpenCV and Pillow as oracles for what is stored and what is not."""

from __future__ import annotations

import collections
import io
import re
import resource
import warnings

import numpy as np
import pytest
from PIL import Image

from pipeline.images.decode import ImageError, decode_bytes
from pipeline.opencv import quiet
from tests.pipeline.images.image_files import jpegs, others, read_by_opencv

SOUND = {**jpegs(), **others()}
ROUNDS = 300  # damaged copies of each file
MAX_PIXELS = 1 << 22
# AVIF: Pillow compares more of the first bytes. Fax: its libtiff would print whatever it finds.
UNKNOWN_TO_PILLOW = {".hdr", ".pfm", "grey PFM", ".pam", ".avif", "fax TIFF"}
# what libjpeg says when it loses data; it prints the first warning of each file
LOSSES = re.compile(r"bad Huffman code|premature end|Premature end|found marker|bad arithmetic code")
# Rejected though no pixel is lost: bytes within or after tables, which mostly tell of tables that are shifted, damage to
# data that no pixel needs, or more than a few bytes before the end that are not uniform.
NO_PROOF = re.compile(
    r"extraneous bytes|bad Huffman code|[Pp]remature end|progression sequence|CR LF|found marker|restart|no image data"
    r"|strips? or tiles?|px that it states|was not defined"
)


PNM_MAXIMUM = re.compile(rb"P[2356]" + rb"(?:\s|#[^\n]*\n)+(\d+)" * 3 + rb"\s")


def is_same(seen, expected, data):
    """True if the pixels are those that OpenCV reads.

    It does not scale a binary PNM whose largest value is neither 255 nor 65535, and rounds down in those of text.
    """
    found = PNM_MAXIMUM.match(data)
    if found is None or int(found[3]) in (255, 65535):
        return np.array_equal(seen, expected)
    factor = 1.0 if data[1:2] in b"23" else (255 if int(found[3]) < 256 else 65535) / int(found[3])
    return seen.shape == expected.shape and np.abs(seen - (expected * factor).clip(max=255)).max() <= factor + 1


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def read_by_pillow(data):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(io.BytesIO(data)).load()
    except Exception:  # noqa: BLE001 - of any kind
        return False
    return True


def flipped(rng, data, at):
    data[at] ^= 1 << int(rng.integers(8))


def overwritten(rng, data, at):
    data[at] = int(rng.integers(256))


def cut(rng, data, at):
    del data[at:]


def lengthened(rng, data, at):
    data[at:at] = rng.integers(0, 256, int(rng.integers(1, 9)), dtype=np.uint8).tobytes()


def shortened(rng, data, at):
    del data[at : at + int(rng.integers(1, 9))]


def blanked(rng, data, at):
    count = min(int(rng.integers(1, 64)), len(data) - at)
    data[at : at + count] = bytes([int(rng.choice([0, 255, int(rng.integers(256))]))]) * count


def filled(rng, data, at):
    data[at:at] = bytes([int(rng.integers(256))]) * int(rng.integers(1, 200))


def copied_in_text_mode(rng, data, at):
    at = at if rng.random() < 0.5 else 0
    data[at:] = data[at:].replace(b"\n", b"\r\n")


def repeated(rng, data, at):
    start = int(rng.integers(len(data)))
    data[at : at + 40] = data[start : start + int(rng.integers(1, 40))]


def cut_and_filled_up(rng, data, at):
    data[at:] = bytes([int(rng.choice([0, 255, int(rng.integers(256))]))]) * (len(data) - at)


def without_end(rng, data, at):
    """Filler in place of a JPEG's EOI marker."""
    data[-2:] = bytes([int(rng.choice([0, 255, int(rng.integers(256))]))]) * int(rng.choice([2, 8, 500]))


DAMAGES = (
    cut_and_filled_up,
    without_end,
    flipped,
    overwritten,
    cut,
    lengthened,
    shortened,
    blanked,
    filled,
    copied_in_text_mode,
    repeated,
)


def damaged_copies(name):
    """Copies of a sound file, each damaged once or twice; a third of the places lie in the first bytes."""
    rng = np.random.default_rng([*name.encode()])
    for _ in range(ROUNDS):
        data = bytearray(SOUND[name])
        for _ in range(int(rng.integers(1, 3))):
            end = len(data) if rng.random() < 0.7 else min(len(data), 300)
            DAMAGES[int(rng.integers(len(DAMAGES)))](rng, data, int(rng.integers(end)) if end else 0)
            data = data or bytearray(b"x")
        yield bytes(data)


@pytest.mark.heavy
@pytest.mark.parametrize("name", SOUND)
def test_stored_is_what_opencv_and_pillow_read_without_loss(name, capfd):
    sound, found, memory = read_by_opencv(SOUND[name]), collections.Counter(), peak_mb()
    for data in damaged_copies(name):
        try:
            with quiet:
                seen, reason = decode_bytes(data, max_pixels=MAX_PIXELS), ""
        except ImageError as error:
            seen, reason = None, str(error)
        if "--max-pixels" in reason or "a chunk " in reason:
            found["not decoded"] += 1  # not here either: OpenCV would allocate gigabytes
            continue
        capfd.readouterr()
        with quiet:
            expected = read_by_opencv(data)
        lost = LOSSES.search(capfd.readouterr().err)
        if seen is not None:
            assert expected is not None
            assert is_same(seen, expected, data), "not what OpenCV reads"
            assert name in UNKNOWN_TO_PILLOW or read_by_pillow(data), "Pillow does not read it"
            assert not (data.startswith(b"\xff\xd8") and lost), f"accepted, but libjpeg says: {lost[0]}"
        elif expected is not None and np.array_equal(expected, sound) and read_by_pillow(data):
            assert "TIFF" in name or data.startswith(b"\xff\xd8") or "CR LF" in reason, (
                f"no pixel is lost, but: {reason}"
            )
            assert NO_PROOF.search(reason), f"no pixel is lost, but: {reason}"
        found["accepted" if seen is not None else "rejected"] += 1
    assert found.total() == ROUNDS
    assert found["rejected"] > 5
    assert peak_mb() - memory < 500


def is_coded(name):
    """True for formats in which filler of any value cannot pass for pixels."""
    return SOUND[name].startswith((b"\xff\xd8", b"\x89PNG", b"GIF"))


@pytest.mark.heavy
@pytest.mark.parametrize("name", [name for name in SOUND if is_coded(name)])
def test_a_file_that_was_cut_and_filled_up_is_stored_if_no_pixel_is_lost(name):
    """Oracle: the undamaged file."""
    sound, rng, rejected = read_by_opencv(SOUND[name]), np.random.default_rng([*name.encode()]), 0
    for _ in range(ROUNDS):
        at = int(rng.integers(len(SOUND[name]) // 3, len(SOUND[name]) - 4))
        filler = bytes([int(rng.choice([0, 0x20, 0x55, 0xFF]))]) * 40_000
        try:
            with quiet:
                seen = decode_bytes(SOUND[name][:at] + filler + (b"\xff\xd9" if rng.random() < 0.5 else b""))
        except ImageError:
            rejected += 1
        else:
            assert np.array_equal(seen, sound), (at, filler[:1], len(filler))
    assert rejected > ROUNDS * 0.9
