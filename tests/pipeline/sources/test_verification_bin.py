"""insightface's .bin files, as all versions of Python and NumPy write them, damaged and hostile."""

from __future__ import annotations

import os
import pickle
import struct

import numpy as np
import pytest

from pipeline.images.decode import ImageError
from pipeline.images.file_part import read_part
from pipeline.sources import pickles
from pipeline.sources.verification_bin import BinError, read_bin
from tests.pipeline.sources.archives import peak_memory

FLAGS = [True, False, True, True]
FILES = [bytes([255, 216, row]) + np.random.default_rng(row).bytes(70 * row) for row in range(8)]
FORMS = {
    "bytes": FILES,
    "arrays": [np.frombuffer(file, np.uint8).copy() for file in FILES],
    "read-only arrays": [np.frombuffer(file, np.uint8) for file in FILES],
    "columns": [np.frombuffer(file, np.uint8).reshape(-1, 1).copy() for file in FILES],  # of OpenCV before 4.5.4
}
TRUTHS = {
    "bools": FLAGS,
    "NumPy bools": [np.bool_(flag) for flag in FLAGS],
    "integers": [int(flag) for flag in FLAGS],
    "array": np.array(FLAGS),
}


def string(data):
    """A string as Python 2 writes it with protocol 1 or 2."""
    return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data


PYTHON2 = (
    b"\x80\x02(]q\x00(" + b"".join(string(file) + b"q" + bytes([row + 1]) for row, file in enumerate(FILES)) + b"e"
) + b"]q\x10(\x88\x89\x88\x88etq\x11."
# image 1 as NumPy 1 with Python 2 writes an array; the others as strings
PYTHON2_ARRAY = (
    b"\x80\x02]("
    + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x03K\x01\x86cnumpy\ndtype\n"
    + b"U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    + string(FILES[0])
    + b"tb"
    + b"".join(map(string, FILES[1:]))
    + b"e](\x88\x89\x88\x88e\x86."
)


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, 2))
    return path


def check(path):
    found = read_bin(path)
    assert found.genuine.tolist() == FLAGS
    assert [read_part(path, part) for part in found.images] == FILES
    assert [part.number for part in found.images] == list(range(1, 9))
    return [part.digest for part in found.images]


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_every_form_is_read_and_has_the_same_digests(tmp_path, protocol):
    found = set()
    for images in FORMS.values():
        for truths in TRUTHS.values():
            for both in ((images, truths), [images, truths]):
                found.add(tuple(check(written(tmp_path / "a.bin", pickle.dumps(both, protocol)))))
    assert len(found) == 1


@pytest.mark.parametrize("content", [PYTHON2, PYTHON2_ARRAY], ids=["strings", "array"])
def test_files_of_python_2_are_read(tmp_path, content):
    check(written(tmp_path / "a.bin", content))


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty; expected a pickle"),
        (pickle.dumps((FILES, FLAGS))[:300], "damaged at byte "),
        (b"PK\x03\x04" + bytes(90), "a zip file, as PyTorch writes checkpoints"),
        (b"10\t300\nAbel_Pacheco\t1\t4\n", "no pickle; expected a pickle"),
        (
            pickle.dumps((FILES, FLAGS), 0),
            "its strings are text (protocol 0); write it again with protocol 2 or higher",
        ),
        (pickle.dumps(FILES), "holds a list of 8"),
        ((FILES, [0.5], FLAGS), "holds something else than lists, tuples, bytes and numbers (BINFLOAT)"),
        ((FILES, [1], FLAGS), "holds a tuple of 3"),
        ((FILES, {"a": 1}), "holds something else than lists, tuples, bytes and numbers (EMPTY_DICT)"),
        ((FILES, FLAGS[:3]), "8 images and 3 truth values, expected two images for each"),
        (([], []), "0 images and 0 truth values, expected"),
        ((FILES, [1, 0, 2, 1]), "truth value 3 is neither True nor False"),
        ((FILES, [True, None, True, True]), "truth value 2 is neither True nor False"),
        ((FILES, 5), "its second part is not a list"),
        (([*FILES[:7], "text"], FLAGS), "image 8 is neither bytes nor an array of them"),
        (([*FILES[:7], 7], FLAGS), "image 8 is neither bytes nor an array of them"),
        (([np.zeros((4, 4, 3), np.uint8), *FILES[1:]], FLAGS), "image 1 is neither bytes nor an array of them"),
        (([np.zeros(4, np.float32), *FILES[1:]], FLAGS), "image 1 is neither bytes nor an array of them"),
        ((FILES, Evil()), "names posix.mkdir, which has no place in it; do not open it with Python's pickle"),
        (b"\x80\x04\x8c\x05numpy\x8c\x04load\x93.", "names numpy.load, which has no place in it"),
        (b"\x80\x02B\xff\xff\xff\xffabc", "states 4,294,967,295 bytes in one piece, at most 1,073,741,824 are read"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc", "states 9,223,372,036,854,775,807 bytes in one piece"),
        (b"\x80\x02h\x05.", "damaged at byte 2"),
        (b"\x80\x02e.", "damaged at byte 2"),
        (b"\x80\x02(\x85.", "damaged at byte 3"),
        (b"\x80\x02]Nb.", "damaged at byte 4"),
        (b"(c" + b"a" * 9000, "damaged at byte 4,098"),
    ],
)
def test_anything_else_is_one_line_and_runs_nothing(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path / "a.bin", content)
    with pytest.raises(BinError) as error:
        read_bin(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert len(str(error.value)) < len(str(path)) + 300
    assert not (tmp_path / "evil").exists()


def test_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, message in (("absent", "No such file or directory"), ("pipe", "not a regular file")):
        with pytest.raises(
            BinError, match=f"^{tmp_path}/{name}: {message}; expected a pickle of a list of image files"
        ):
            read_bin(tmp_path / name)
    with pytest.raises(BinError, match="not a regular file"):
        read_bin(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02]" + b"r\xff\xff\xff\x7f" * 2000 + b".",  # Python's unpickler would make room for as many entries
        b"\x80\x02]q\x00" + b"(h\x00h\x00h\x00h\x00e" * 1000 + b".",
        b"\x80\x02)" + b"\x85" * 10_000 + b".",
        b"\x80\x02" + b"(" * 10_000 + b".",
        b"\x80\x02\x8b\xff\xff\xff\x7f" + b"1" * 9000 + b".",
    ],
    ids=["memo", "lists", "nested", "marks", "number"],
)
def test_small_files_take_little_memory(tmp_path, content):
    path = written(tmp_path / "a.bin", content)
    assert path.stat().st_size < 25_000
    with peak_memory() as peak, pytest.raises(BinError):
        read_bin(path)
    assert peak() < 10 << 20


def test_a_shape_that_refers_to_itself_often_takes_no_time(tmp_path):
    """Its product would have millions of digits."""
    number = b"\x8a\xff" + b"\x7f" * 255
    shape = number + b"q\x01(" + b"h\x01" * 100_000 + b"t"
    array = (
        b"cnumpy.core.numeric\n_frombuffer\n(" + string(b"abc") + b"cnumpy\ndtype\nU\x02u1\x85R" + shape + b"U\x01CtR"
    )
    path = written(tmp_path / "a.bin", b"\x80\x02](" + array + b"e]\x86.")
    with pytest.raises(BinError, match="image 1 is neither bytes nor an array of them"):
        read_bin(path)


def test_the_number_of_operations_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(pickles, "MAX_OPERATIONS", 50)
    check(written(tmp_path / "a.bin", PYTHON2))
    with pytest.raises(BinError, match="more than 50 operations"):
        read_bin(written(tmp_path / "a.bin", (FORMS["arrays"], FLAGS)))


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_changed_bytes_give_pairs_or_one_line(tmp_path, protocol):
    rng = np.random.default_rng(protocol)
    whole = pickle.dumps((FORMS["arrays"], TRUTHS["NumPy bools"]), protocol)
    outcomes = set()
    for _ in range(80):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.integers(256)
        path = written(tmp_path / "a.bin", bytes(data))
        try:
            parts = read_bin(path).images
        except BinError:
            outcomes.add("refused")
            continue
        outcomes.add("read")
        for part in parts:
            assert part.offset + part.size <= len(data)
    assert outcomes == {"refused", "read"}


def test_parts_are_read_whole_or_not_at_all(tmp_path):
    path = written(tmp_path / "a.bin", PYTHON2)
    parts = read_bin(path).images
    assert read_part(path, parts[0], parts[0].size) == FILES[0]
    with pytest.raises(ImageError, match=r"^it has 3 bytes; at most 2 are read \(--max-pixels\)$"):
        read_part(path, parts[0], 2)
    path.write_bytes(path.read_bytes()[: parts[-1].offset + 5])
    assert read_part(path, parts[0]) == FILES[0]
    with pytest.raises(ImageError, match=r"^the file ends within it: it has [\d,]+ bytes, expected [\d,]+$"):
        read_part(path, parts[-1])
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_part(path, parts[0])
