"""Tars with members of other kinds, and damaged ones."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from pipeline.images.decode import ImageError
from pipeline.sources.source import SourceError
from pipeline.sources.tar_members import tar_images
from pipeline.sources.webdataset import TarReader, WebDataset
from tests.pipeline.sources.archives import peak_memory
from tests.pipeline.sources.tars import JPEG, keys, rows_of, write_tar
from tests.shard_sets import flip_bit


def test_many_long_names_in_a_row_are_refused(tmp_path):
    path, data = whole(tmp_path)
    name = header(b"././@LongLink", 5, b"L") + b"name".ljust(512, b"\0")
    path.write_bytes(data[:1536] + name * 2000 + data[1536:])
    with pytest.raises(SourceError, match="damaged or cut, after 1 member"):
        rows_of(path)


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_links_devices_and_other_members_are_counted_and_never_followed(tmp_path):
    members = [
        special("n1", tarfile.DIRTYPE),
        ("n1/a.jpg", JPEG),
        special("n1/b.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        special("n1/c.jpg", tarfile.LNKTYPE, "n1/a.jpg"),
        special("n1/d.jpg", tarfile.FIFOTYPE),
        special("n1/e.jpg", tarfile.CHRTYPE),
        ("n1/._a.jpg", JPEG),
        ("n1/readme.npy", b""),
        ("/etc/n2/f.jpg", JPEG),
        ("../../n3/g.jpg", JPEG),
    ]
    rows = rows_of(write_tar(tmp_path / "a.tar", members))
    assert keys(rows) == ["n1/a", "n2/f"]
    assert rows.others == [
        *(f"a.tar/n1/{name}.jpg (no regular file)" for name in "bcde"),
        "a.tar/n1/._a.jpg",
        "a.tar/n1/readme.npy",
        "a.tar/../../n3/g.jpg",
    ]


def test_long_names_and_other_formats_of_tars(tmp_path):
    key = "x" * 150 + "/" + "\u00e9" * 40
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=kind) as tar:
            info = tarfile.TarInfo(f"n1/{key}.jpg")
            info.size = len(JPEG)
            tar.addfile(info, io.BytesIO(JPEG))
        rows = rows_of(tmp_path / "a.tar")
        assert keys(rows) == [key]
        assert rows.reader.read(rows.places[0].as_py()) == JPEG


def test_names_that_are_no_text(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        info = tarfile.TarInfo("n\u00e9/x\u00ff.jpg")
        tar.addfile(info)
    assert keys(rows_of(tmp_path / "a.tar")) == [r"n\udce9/x\udcff"]


def whole(tmp_path):
    path = write_tar(tmp_path / "a.tar", [(f"n{number}/{number}.jpg", bytes(700)) for number in range(6)])
    return path, path.read_bytes()


@pytest.mark.parametrize("cut", [512 * 3 + 100, 512 * 3 + 600, 512 * 5 - 1])
def test_a_cut_tar_is_refused(tmp_path, cut):
    path, data = whole(tmp_path)
    path.write_bytes(data[:cut])
    with pytest.raises(SourceError) as error:
        rows_of(path)
    assert str(error.value).startswith(f"{path}: damaged or cut, after 1 member and 1,536 bytes (")
    assert str(error.value).endswith("copy or download it again, or take it out of the folder")


def test_a_damaged_header_does_not_end_a_tar_in_silence(tmp_path):
    path, data = whole(tmp_path)
    flip_bit(path, 2 * 1536 + 3)
    with pytest.raises(
        SourceError, match=r"damaged or cut, after 2 members and 3,072 bytes \(something that is not a member"
    ):
        rows_of(path)
    path.write_bytes(data + data)
    with pytest.raises(SourceError, match="several tars joined"):
        rows_of(path)
    path.write_bytes(data[: 6 * 1536])  # without the zeros at the end
    assert len(keys(rows_of(path))) == 6


def number(value):
    """A number as GNU tar writes those that are too large for octal digits."""
    return (0x80 << 88 | value).to_bytes(12, "big") if value >= 0 else (256**12 + value).to_bytes(12, "big")


def header(name, size, kind=b"0"):
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108], block[124:136], block[156:157], block[257:265] = b"0000644\0", number(size), kind, b"ustar\00000"
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


@pytest.mark.parametrize("size", [1 << 40, (1 << 80) - 1, -512, -(1 << 70)])
@pytest.mark.parametrize("kind", [b"0", b"L", b"x", b"g"])
def test_wrong_sizes_are_refused_without_allocating_memory(tmp_path, size, kind):
    path, data = whole(tmp_path)
    path.write_bytes(data[: 2 * 1536] + header(b"n9/9.jpg", size, kind) + bytes(4096))
    with peak_memory() as peak, pytest.raises(SourceError, match="damaged or cut, after 2 members"):
        rows_of(path)
    assert peak() < 10 << 20


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tar", gzip.compress(bytes(2048), mtime=0), "packed by gzip; unpack it first"),
        ("a.tar", b"", "damaged or cut, after 0 members and 0 bytes (empty file)"),
        ("a.tar", b"no tar at all " * 100, "damaged or cut, after 0 members and 0 bytes ("),
        ("a.tar", bytes(10240), "no images in the tars"),
        ("folder", None, "no tars in it; --root names a tar, or the folder in which *.tar lie"),
        ("absent", None, "not found; --root names a tar, or a folder of tars"),
    ],
)
def test_what_is_no_tar(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    elif name == "folder":
        path.mkdir()
    with pytest.raises(SourceError) as error:
        rows_of(WebDataset().locate(path))
    assert str(error.value).startswith(f"{path}: {message}")
    assert "pipe" not in str(error.value)


def test_a_tar_without_images_says_what_was_left_out(tmp_path):
    write_tar(tmp_path / "a.tar", [("../../n/a.jpg", JPEG), ("n/a.heic", JPEG)])
    with pytest.raises(
        SourceError, match=r"no images .*; ignored 2 other entries \(a.tar/../../n/a.jpg, a.tar/n/a.heic\)$"
    ):
        rows_of(WebDataset().locate(tmp_path / "a.tar"))


def test_compressed_tars_in_a_folder_are_refused(tmp_path):
    write_tar(tmp_path / "a.tar", [("n/a.jpg", JPEG)])
    (tmp_path / "b.tar.gz").touch()
    with pytest.raises(
        SourceError, match=r"compressed tars \(b.tar.gz\), which cannot be read image by image; unpack them"
    ):
        rows_of(tmp_path)


def test_changed_bytes_give_images_or_one_line(tmp_path):
    rng = np.random.default_rng(0)
    path, data = whole(tmp_path)
    outcomes = set()
    for _ in range(100):
        changed = bytearray(data)
        changed[rng.integers(6 * 1536)] = rng.integers(256)
        path.write_bytes(changed)
        others = []
        try:
            for image in tar_images(path, others):
                assert image.offset + image.size <= len(changed)
            outcomes.add("read")
        except SourceError:
            outcomes.add("refused")
    assert outcomes == {"refused", "read"}


def test_the_reader_survives_pickling_and_tells_a_tar_that_changed(tmp_path):
    (tmp_path / "tars").mkdir()
    for number_ in range(40):
        write_tar(tmp_path / "tars" / f"{number_:02d}.tar", [(f"n/{number_}.jpg", b"x" * (number_ + 1))])
    rows = rows_of(tmp_path / "tars")
    reader = pickle.loads(pickle.dumps(rows.reader))
    for place, size in zip(rows.places.to_pylist(), range(1, 41), strict=True):
        assert reader.read(place) == b"x" * size
    assert len(os.listdir("/proc/self/fd")) < 80
    with pytest.raises(ImageError, match=r"the file has 40 bytes; at most 39 are read \(--max-pixels\)"):
        reader.read(place, 39)
    reader.close()
    (tmp_path / "tars" / "39.tar").write_bytes(bytes(520))
    with pytest.raises(ImageError, match=r"39\.tar has become shorter: 8 of 40 bytes"):
        reader.read(place)
    reader.close()
    (tmp_path / "tars" / "39.tar").unlink()
    with pytest.raises(SourceError, match=r"39\.tar: no longer there; bring it back, then run the same command again"):
        reader.read(place)
    assert isinstance(reader, TarReader)
