"""JPEGs of every kind: warnings of libjpeg that cost no pixel, and damage, of which it does not always warn."""

from __future__ import annotations

import collections
import io
import itertools
import re
import struct

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from pipeline.images import huffman
from pipeline.images.decode import ImageError, decode_bytes
from pipeline.images.jpeg import read_header
from tests.pipeline.images.image_files import (
    HEIGHT,
    WIDTH,
    adobe,
    after_start,
    before_end,
    by_pillow,
    first_scan,
    jpeg,
    jpegs,
    pixels,
    read_by_opencv,
    reason,
    sampled_jpeg,
    segment,
    turned,
)

SOUND, PLAIN = jpegs(), jpeg()


def with_scan(data, change):
    """A JPEG of one scan with other entropy-coded data."""
    _, start = first_scan(data)
    return data[:start] + change(data[start:-2]) + data[-2:]


def odd_scan_header(data):
    _, start = first_scan(data)
    return data[: start - 3] + b"\0\0\0" + data[start:]


def without_tables(data):
    """A JPEG as a frame of a Motion JPEG: the Huffman tables are the standard's and left out."""
    while b"\xff\xc4" in data[: first_scan(data)[0]]:
        at = data.index(b"\xff\xc4")
        data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4]) :]
    return data


def test_every_sampling_factor_is_decoded_as_by_opencv_and_pillow():
    factors = list(itertools.product((1, 2, 3, 4), (1, 2, 3, 4)))
    cases = [[luma, (1, 1), (1, 1)] for luma in factors] + [[(1, 1), chroma, chroma] for chroma in factors]
    read = 0
    for case in cases:
        data = sampled_jpeg(case)
        found = decode_bytes(data)
        assert np.array_equal(found, read_by_opencv(data)), case
        assert np.array_equal(found, np.asarray(Image.open(io.BytesIO(data)))[..., ::-1]), case
        read += 1
    assert read == 32


HARMLESS = {
    "zeros": before_end(PLAIN, b"\0" * 4),
    "many zeros": before_end(PLAIN, b"\0" * 70_000),
    "uniform filler": before_end(PLAIN, b"\x55" * 300),
    "FF": before_end(PLAIN, b"\xff" * 300),
    "a few bytes": before_end(PLAIN, bytes(range(1, 17))),
    "scan parameters": odd_scan_header(PLAIN),
    "scan parameters and zeros": odd_scan_header(before_end(PLAIN, b"\0" * 100)),
    "JFIF 9.9": PLAIN.replace(b"JFIF\0\1\1", b"JFIF\0\x09\x09"),
    "Adobe transform 7": after_start(PLAIN, adobe(7)),
    "bad ICC profile": after_start(PLAIN, segment(0xE2, b"ICC_PROFILE\0\0\0")),
    "bytes after a comment": after_start(PLAIN, segment(0xFE, b"comment") + b"odd"),
    "zeros after the tables": PLAIN.replace(b"\xff\xda", b"\0\0\xff\xda"),
    "bytes after the end": PLAIN + b"more\r\n" * 10,
    "a JPEG after the end": PLAIN + jpeg(mode="L"),
    "a JPEG in a segment": after_start(PLAIN, segment(0xE1, PLAIN)),
    "no Huffman tables": without_tables(PLAIN),
    "text in segments": after_start(PLAIN, segment(0xE1, b"<x>\r\n" * 300)),
}


FILLERS = {
    "zeros": b"\0" * 300,
    "0x55": b"\x55" * 300,
    "a few bytes": b"\1\2\3\4\5\6\7\x08",
    "a comment": segment(0xFE, b"comment"),
}


@pytest.mark.parametrize("filler", FILLERS)
@pytest.mark.parametrize("kind", ["sampling 4:2:0", "grey", "CMYK", "restarts", "turned"])
def test_what_follows_the_last_scan_takes_the_place_of_the_end(kind, filler):
    """OpenCV and Pillow read it, and lose nothing."""
    data = SOUND[kind][:-2] + FILLERS[filler]
    Image.open(io.BytesIO(data)).load()
    assert np.array_equal(decode_bytes(data), read_by_opencv(SOUND[kind]))
    assert np.array_equal(read_by_opencv(data), read_by_opencv(SOUND[kind]))


@pytest.mark.parametrize("value", [0x00, 0x55, 0x20, 0xFF])
@pytest.mark.parametrize("kind", ["sampling 4:2:0", "sampling 4:1:0", "grey", "progressive", "restarts"])
def test_filler_in_place_of_what_a_scan_lost_is_no_filler(kind, value):
    """As a download leaves it that ended early, in a file that had its full length from the beginning."""
    start = SOUND[kind].rindex(b"\xff\xda") + 20
    cuts = np.linspace(start, len(SOUND[kind]) - 4, 12).astype(int).tolist()
    for cut in cuts:
        for length in (500, 30_000):
            for end in (b"", b"\xff\xd9"):
                assert reason(decode_bytes, SOUND[kind][:cut] + bytes([value]) * length + end), (cut, length)


@pytest.mark.parametrize("name", HARMLESS)
def test_a_warning_that_costs_no_pixel_is_no_reason_to_reject(name, capfd):
    assert np.array_equal(decode_bytes(HARMLESS[name]), read_by_opencv(PLAIN))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "kind", ["CMYK", "YCCK 4:1:0", "sampling 4:1:0", "progressive", "progressive CMYK", "turned", "restarts", "grey"]
)
def test_filler_is_harmless_in_every_kind_of_jpeg(kind):
    for filler in (b"\0" * 3, b"\0" * 200, b"\x37" * 33):
        data = before_end(SOUND[kind], filler)
        assert np.array_equal(decode_bytes(data), read_by_opencv(SOUND[kind]))


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(10))
def test_the_rotation_that_exif_states_is_applied(orientation, byte_order):
    """An upright image needs no second decoder."""
    exif = Image.Exif()
    exif.endian = byte_order
    exif[0x010F], exif[0x0112] = "camera", orientation
    data = jpeg(exif=exif)
    assert np.array_equal(decode_bytes(data), read_by_opencv(data))
    assert read_header(data).may_turn == (orientation != 1)


def test_a_rotation_is_found_behind_any_number_of_segments():
    data = after_start(jpeg(exif=turned()), segment(0xE2, b"x" * 65_000) * 5)
    assert decode_bytes(data).shape == (WIDTH, HEIGHT, 3)
    assert decode_bytes(odd_scan_header(data)).shape == (WIDTH, HEIGHT, 3)


def test_a_grey_jpeg_can_stay_grey():
    assert decode_bytes(SOUND["grey"], grey=True).shape == (HEIGHT, WIDTH)
    assert decode_bytes(SOUND["grey"]).shape == (HEIGHT, WIDTH, 3)


def warned_of(mode):
    """JPEGs with another byte in their scan, of which libjpeg warns; most others it reads without a word."""
    rng = np.random.default_rng(0)
    for seed in range(200):
        data = by_pillow("JPEG", mode, pixels(seed), quality=90)
        at = int(rng.integers(first_scan(data)[1], len(data) - 2))
        data = data[:at] + bytes([int(rng.integers(1, 255))]) + data[at:]
        if reason(simplejpeg.decode_jpeg, data, "GRAY"):
            yield data


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_rest_of_a_shifted_scan_is_no_filler(mode):
    """It is as short as filler may be, but goes on with the scan."""
    found = stored = 0
    for data in warned_of(mode):
        found += 1
        stored += not reason(decode_bytes, data)
    assert found > 30
    assert stored <= 1  # what follows a complete MCU may be anything


def test_a_few_bytes_are_filler_after_nearly_every_scan():
    """A few are taken for the rest of the scan."""
    rng, stored = np.random.default_rng(0), 0
    for seed in range(100):
        data = by_pillow("JPEG", "L", pixels(seed), quality=90)
        filler = rng.integers(0, 256, int(rng.integers(1, 17)), dtype=np.uint8).tobytes()
        stored += not reason(decode_bytes, before_end(data, filler))
    assert stored > 90


def hidden_huffman_error():
    """A JPEG of which libjpeg at last says '... extraneous bytes', after 'bad Huffman code'."""
    _, start = first_scan(PLAIN)
    return before_end(PLAIN[: start + 200] + b"\xff\0" * 4 + PLAIN[start + 200 :], b"\0" * 100)


NOISE = np.random.default_rng(0).integers(1, 255, 500, dtype=np.uint8).tobytes()


def without_ac_scans(data):
    """A progressive JPEG of DC coefficients, each with all of its bits."""
    at, parts = 2, [data[:2]]
    for found in re.finditer(rb"\xff[\xc4\xda\xd9]", data):  # only scans and their tables lie behind the first one
        part = data[at : found.start()]
        is_scan = part.startswith(b"\xff\xda")
        parts += [] if is_scan and part[5 + 2 * part[4]] else [part]
        at = found.start()
    return b"".join(parts) + b"\xff\xd9"


DAMAGED = {
    "LF became CR LF": PLAIN.replace(b"\n", b"\r\n"),
    "LF became CR LF, progressive": jpeg(progressive=True).replace(b"\n", b"\r\n"),
    "hidden Huffman error": hidden_huffman_error(),
    "noise before the end": before_end(PLAIN, NOISE),
    "bytes after a quantisation table": PLAIN.replace(b"\xff\xc0", b"\x63\x63\xff\xc0"),
    "bytes after a Huffman table": PLAIN.replace(b"\xff\xda", b"\xfa\xff\xda"),
    "cut": PLAIN[:-300],
    "cut before the scan": PLAIN[:200],
    "cut, arithmetic": SOUND["arithmetic"][:-30] + b"\xff\xd9",
    "filled up, arithmetic": before_end(SOUND["arithmetic"], b"\x55" * 300),
    "overwritten": PLAIN[: len(PLAIN) // 2] + b"\xff\x3f" * 20 + PLAIN[len(PLAIN) // 2 + 40 :],
    "no end": PLAIN[:-2],
    "end too early": with_scan(PLAIN, lambda scan: scan[:-60]),
    "end too early, 4:1:0": SOUND["sampling 4:1:0"][:-60] + b"\xff\xd9",
    "bytes lost, YCCK": SOUND["YCCK 4:1:0"][:-500] + SOUND["YCCK 4:1:0"][-400:],
    "bytes lost, progressive CMYK": SOUND["progressive CMYK"][:-300] + SOUND["progressive CMYK"][-200:],
    "no scan of the last component": SOUND["sampling 4:4:0"][: SOUND["sampling 4:4:0"].rindex(b"\xff\xda")]
    + b"\xff\xd9",
    "no last scan, progressive": SOUND["progressive"][: SOUND["progressive"].rindex(b"\xff\xc4")] + b"\xff\xd9",
    "no scans of AC coefficients": without_ac_scans(SOUND["progressive"]),
    "restart markers lost": SOUND["restarts"].replace(b"\xff\xd1", b""),
    "no scan": PLAIN[: first_scan(PLAIN)[0]] + b"\xff\xd9",
    "sampling changed": PLAIN.replace(b"\x03\x01\x22", b"\x03\x01\x32"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_jpeg_that_lost_pixels_is_rejected(name):
    assert DAMAGED[name] not in SOUND.values()
    with pytest.raises(ImageError, match=rf"^damaged JPEG \({len(DAMAGED[name])} bytes\): "):
        decode_bytes(DAMAGED[name])


@pytest.mark.parametrize("name", ["sampling 4:2:0", "restarts", "grey", "CMYK", "progressive"])
def test_the_check_of_huffman_codes_agrees_with_libjpeg(name):
    """Oracle: simplejpeg, where it knows the sampling factors. libjpeg is silent about up to seven bytes too many."""
    _, start = first_scan(SOUND[name])
    rng, found = np.random.default_rng(0), collections.Counter()
    for _ in range(200):
        data = bytearray(SOUND[name])
        data[int(rng.integers(start, len(data) - 2))] ^= 1 << int(rng.integers(8))
        ours, theirs = reason(huffman.check_scans, bytes(data)), reason(simplejpeg.decode_jpeg, bytes(data), "GRAY")
        found[bool(ours), bool(theirs)] += 1
        assert ours or not theirs or "progressi" in theirs  # parameters of a scan, which OpenCV rejects as well
        assert theirs or not ours or "extraneous" in ours
    assert found[False, False] > 50
    assert found[True, True] > 5


def test_a_jpeg_without_height_says_so():
    """Its height would follow the scan, as a DNL segment."""
    with pytest.raises(ImageError, match=f"the image states {WIDTH}x0 px"):
        decode_bytes(jpeg().replace(struct.pack(">HH", HEIGHT, WIDTH), struct.pack(">HH", 0, WIDTH), 1))
