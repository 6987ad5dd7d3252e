"""Decoding: stored is what OpenCV and Pillow read without losing a pixel; anything else is an error with a reason."""

from __future__ import annotations

import collections
import io
import itertools
import os
import re
import struct

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps, features

from pipeline.images import huffman
from pipeline.images.decode import ImageError, decode, decode_bytes, read_regular
from pipeline.images.lookup import IMAGE_SUFFIXES
from tests.pipeline.images.image_files import (
    HEIGHT,
    WIDTH,
    adobe,
    after_start,
    before_end,
    by_opencv,
    by_pillow,
    first_scan,
    jpeg,
    jpegs,
    others,
    pixels,
    read_by_opencv,
    reason,
    sampled_jpeg,
    segment,
    turned,
)

FOREIGN = {
    b"\n<!DOCTYPE html><html>404</html>": "a web page or XML, not an image; download it again",
    b"<?xml version='1.0'?><Error/>": "a web page or XML, not an image; download it again",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "a pointer of Git LFS, not the image; run git lfs pull",
    b"\0\0\0\x18ftypheic\0\0\0\0mif1heic": "HEIC, which OpenCV does not read; convert it to JPEG or PNG",
}


@pytest.mark.parametrize("data", FOREIGN, ids=["page", "XML", "LFS", "HEIC"])
def test_what_is_often_met_in_place_of_an_image_is_named(data):
    assert reason(decode_bytes, data) == f"cannot be decoded ({len(data)} bytes): {FOREIGN[data]}"


SOUND = {**jpegs(), **others()}


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


PLAIN = jpeg()
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


def test_a_rotation_is_found_behind_any_number_of_segments():
    data = after_start(jpeg(exif=turned()), segment(0xE2, b"x" * 65_000) * 5)
    assert decode_bytes(data).shape == (WIDTH, HEIGHT, 3)
    assert decode_bytes(odd_scan_header(data)).shape == (WIDTH, HEIGHT, 3)


@pytest.mark.skipif(not features.check("avif"), reason="Pillow without AVIF")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_rotation_of_an_avif_is_applied(orientation):
    """OpenCV leaves it out; Pillow hands it on as an EXIF tag."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = by_pillow("AVIF", exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(decode_bytes(data), np.asarray(upright)[..., ::-1])


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


@pytest.mark.parametrize("format", ["BMP", "WEBP"])
def test_a_line_feed_behind_an_image_is_no_copy_in_text_mode(format):
    data = by_pillow(format, image=np.full((8, 8, 3), 200, np.uint8)) + b"\r\n"
    assert data.count(b"\n") == 1
    assert np.array_equal(decode_bytes(data), read_by_opencv(data))


def test_another_largest_value_of_a_pam_is_refused():
    for maximum in (1, 100):
        data = SOUND[".pam"].replace(b"MAXVAL 255", b"MAXVAL %d" % maximum)
        assert data != SOUND[".pam"]
        with pytest.raises(ImageError, match=f"its largest value is {maximum}, expected 255 or 65535"):
            decode_bytes(data)


def test_a_jpeg_without_height_says_so():
    """Its height would follow the scan, as a DNL segment."""
    with pytest.raises(ImageError, match=f"the image states {WIDTH}x0 px"):
        decode_bytes(jpeg().replace(struct.pack(">HH", HEIGHT, WIDTH), struct.pack(">HH", 0, WIDTH), 1))


def test_a_huge_file_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "huge.jpg"
    with open(path, "wb") as stream:
        stream.write(PLAIN)
        stream.truncate(20 << 30)
    monkeypatch.setattr(os, "read", None)
    with pytest.raises(ImageError, match=r"^the file has 21,474,836,480 bytes; at most 1,073,741,824 are read"):
        decode(path)


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
