"""MATLAB files: the same values as SciPy's reader, and one named error for whatever is in them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import scipy.io

from benchmarks.datasets.lfw import read_lfw
from benchmarks.datasets.matfile import MAX_CELLS, MatError, MatFile
from benchmarks.datasets.matlab import read_cells, read_ids
from benchmarks.errors import ProtocolError


def saved(compressed=False, **variables):
    stream = io.BytesIO()
    scipy.io.savemat(stream, variables, do_compression=compressed)
    return stream.getvalue()


def cells(rows):
    array = np.empty((len(rows), len(rows[0])), object)
    array[:] = rows
    return array


NAMES = [[f"{row:04d}_cam1_{row}.jpg", f"{row}.jpg"] for row in range(40)]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"])
def test_numbers_equal_those_of_scipy(kind, compressed):
    values = np.arange(24, dtype=kind).reshape(2, 3, 4)
    data = saved(compressed, first=np.ones(3), values=values, one=values[:1, :1, :1])
    expected = scipy.io.loadmat(io.BytesIO(data))
    file = MatFile(data)
    assert file.names == ["first", "values", "one"]
    for name in file.names:
        found = file.read(name)
        assert (found.dtype, found.tolist()) == (expected[name].dtype, expected[name].tolist())


@pytest.mark.parametrize("compressed", [False, True])
def test_cells_equal_those_of_scipy(tmp_path, compressed):
    rows = [*NAMES, ["caf\u00e9.jpg", "\u4e2d\u6587 1.jpg"], ["a" * 200, "1"]]
    path = tmp_path / "a.mat"
    path.write_bytes(saved(compressed, ids=np.arange(3), names=cells(rows)))
    assert read_cells(path, "names", 2).tolist() == rows
    nested = [[cells([["x.jpg"]])], ["y.jpg"]]
    path.write_bytes(saved(compressed, names=cells(nested)))
    assert read_cells(path, "names", 1).tolist() == [["x.jpg"], ["y.jpg"]]


def element(kind, content, order="<"):
    return struct.pack(f"{order}II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(order, cls, shape, data, name=b""):
    head = element(6, struct.pack(f"{order}II", cls, 0), order) + element(5, struct.pack(f"{order}2i", *shape), order)
    return element(14, head + element(1, name, order) + data, order)


def header(order):
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack(f"{order}H", 0x100) + {"<": b"IM", ">": b"MI"}[order]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("stored", "codec"), [(4, "utf-16"), (17, "utf-16"), (18, "utf-32"), (16, "utf-8"), (2, "ascii")]
)
def test_text_of_every_encoding_and_byte_order_is_read(order, stored, codec):
    text = "1_cam.jpg" if codec == "ascii" else "\u4e2d.jpg"
    ending = {"<": "-le", ">": "-be"}[order] if codec in ("utf-16", "utf-32") else ""
    content = text.encode(codec + ending)
    cell = matrix(order, 4, (1, len(text)), element(stored, content, order))
    ids = matrix(order, 6, (1, 2), element(2, b"\7\x08", order), b"ids")  # doubles may be stored as small integers
    file = MatFile(header(order) + ids + matrix(order, 1, (1, 1), cell, b"names"))
    assert file.read("names").tolist() == [[text]]
    assert (file.read("ids").tolist(), file.read("ids").dtype) == ([[7.0, 8.0]], np.float64)


@pytest.mark.parametrize("name", ["../x.jpg", "/etc/passwd", "a/../../x.jpg", "..", "a/..", "x" * 5000, "/", "//x.jpg"])
def test_names_that_lead_outside_are_refused(tmp_path, name):
    path = tmp_path / "a.mat"
    path.write_bytes(saved(names=cells([["1.jpg"], [name]])))
    with pytest.raises(
        ProtocolError, match=r"a\.mat: a cell contains '.*', expected a file name below the folder of images"
    ):
        read_cells(path, "names", 1)


@pytest.mark.parametrize("name", ["..jpg", "...", "a/b.jpg", "a..b.jpg", "\\..\\x.jpg"])
def test_other_names_with_dots_are_read(tmp_path, name):
    path = tmp_path / "a.mat"
    path.write_bytes(saved(names=cells([[name], ["2.jpg"]])))
    assert read_cells(path, "names", 1)[0, 0] == name


@pytest.mark.parametrize("name", ["..", "."])
def test_a_pair_list_never_leads_outside(demo, name):
    root = demo("LFW")
    text = (root / "pairs.txt").read_text().splitlines()
    text[1] = "\t".join([name, *text[1].split("\t")[1:]])
    (root / "pairs.txt").write_text("\n".join(text) + "\n")
    with pytest.raises(ProtocolError, match=rf"pairs\.txt: line 2: found '{name}', expected a person's name"):
        read_lfw(root)


def bombs():
    """Small files that claim, or unpack to, any amount of memory."""
    shape = (1 << 30, 1)
    head = element(6, struct.pack("<II", 1, 0)) + element(5, struct.pack("<2i", *shape)) + element(1, b"names")
    yield "2^30 cells", header("<") + element(14, head)
    yield "2^30 numbers", header("<") + matrix("<", 6, shape, element(9, bytes(8)), b"names")
    zeros = element(14, head + bytes(1 << 27))
    yield "128 MB of empty cells", header("<") + struct.pack("<II", 15, len(packed := zlib.compress(zeros))) + packed
    small = MAX_CELLS + 1
    many = matrix("<", 1, (small, 1), element(14, b"") * small, b"names")
    yield "too many cells", header("<") + struct.pack("<II", 15, len(packed := zlib.compress(many))) + packed
    deep = matrix("<", 4, (1, 1), element(2, b"x"))
    for _ in range(5000):
        deep = matrix("<", 1, (1, 1), deep, b"names")
    yield "deep nesting", header("<") + deep
    yield "no end", header("<") + struct.pack("<II", 14, 2**32 - 1)
    yield "negative dimensions", header("<") + matrix("<", 1, (-1, -1), b"", b"names")
    yield "complex numbers", saved(names=np.ones(3) * 1j)
    yield "a structure", saved(names={"a": 1})
    yield "sparse", saved(names=scipy.sparse.eye(3))
    yield "version 4", struct.pack("<IIIII", 0, 1, 1, 0, 6) + b"names\0" + bytes(8)


@pytest.mark.parametrize(("name", "data"), list(bombs()), ids=lambda value: value if isinstance(value, str) else "")
def test_claims_beyond_the_file_are_refused(tmp_path, name, data):
    path = tmp_path / "a.mat"
    path.write_bytes(data)
    with pytest.raises(
        ProtocolError, match=r"a\.mat: not a readable MATLAB 5 file \(.*\); restore it from the archive"
    ):
        read_cells(path, "names", 1)


def test_a_file_that_is_longer_than_any_list_is_not_read(tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(saved(names=cells(NAMES)))
    with open(path, "r+b") as stream:
        stream.truncate(1 << 40)  # takes no disk
    with pytest.raises(
        ProtocolError, match=r"a\.mat: not .* \(1,099,511,627,776 bytes, expected at most 268,435,456\)"
    ):
        read_cells(path, "names", 2)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(("count", "seed"), [(120, 0), pytest.param(20_000, 1, marks=pytest.mark.heavy)])
def test_damaged_files_give_named_errors(tmp_path, compressed, count, seed):
    path, rng = tmp_path / "a.mat", np.random.default_rng(seed)
    good = saved(compressed, ids=np.arange(40), names=cells(NAMES))
    refused = 0
    for _ in range(count):
        data = bytearray(good)
        for position in rng.integers(124, len(data), rng.integers(1, 4)).tolist():
            data[position] = (
                (data[position] ^ 1 << int(rng.integers(8))) if rng.random() < 0.7 else int(rng.integers(256))
            )
        path.write_bytes(data[: int(rng.integers(len(data)))] if rng.random() < 0.1 else data)
        try:
            assert read_cells(path, "names", 2).shape == (40, 2)
            assert len(read_ids(path, "ids", 40)) == 40
        except ProtocolError:
            refused += 1
    assert refused > count // 10


def test_unknown_variables_and_files_are_named():
    with pytest.raises(MatError, match=r"no header of MATLAB 5"):
        MatFile(b"")
