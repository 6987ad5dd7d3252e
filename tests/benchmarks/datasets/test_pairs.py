"""LFW's pair lists: folds, and line numbers in errors."""

from __future__ import annotations

import pytest

from benchmarks.datasets.lfw import read_lfw
from benchmarks.datasets.pairs import read_pairs
from benchmarks.errors import ProtocolError


@pytest.fixture
def root(demo):
    return demo("LFW")


@pytest.mark.parametrize("header", ["10\t300", "10 300", " 10\t300 "])
def test_folds_are_contiguous(tmp_path, header):
    folds, each = (int(word) for word in header.split())
    lines = [header]
    for fold in range(folds):
        lines += [f"A{fold}\t1\t2"] * each + [f"A{fold}\t1\tB{fold}\t2"] * each
    path = tmp_path / "pairs.txt"
    path.write_text("\n".join(lines))
    pairs = read_pairs(path)
    assert pairs.folds.tolist() == [fold for fold in range(folds) for _ in range(2 * each)]
    assert pairs.genuine.sum() == folds * each
    path.write_text("\n".join(["2\t1", "A\t1\t2", "A\t1\tB\t2", "C D\t1\t2", "A\t01\tB\t2"]))
    assert read_pairs(path).folds.tolist() == [0, 0, 1, 1]
    assert read_pairs(path).names[2].tolist() == [["C D", "1"], ["C D", "2"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "",
            "line 1: found '', expected the number of folds and of pairs a fold, such as 10<TAB>300; at least 2 folds",
        ),
        ("300\nA\t1\t2\n", "line 1: found '300', expected the number of folds"),
        ("1\t1\nA\t1\t2\nA\t1\tB\t1\n", "line 1: found '1 1', expected"),
        (
            "2\t1\nA\t1\t2\nA\t1\tB\t1\n",
            "2 pairs, but line 1 states 2 folds of 1 genuine and 1 impostor pairs, 4 in all",
        ),
        ("2\t1\nA\t1\t2\nA\t1\t2\nA\t1\t2\nA\t1\tB\t1\n", "line 3: 3 fields, expected an impostor pair"),
        ("2\t1\nA\t1\tB\t2\nA\t1\tB\t2\nA\t1\t2\nA\t1\tB\t1\n", "line 2: 4 fields, expected a genuine pair"),
        (
            "2\t1\nA\t1\tx\nA\t1\tB\t2\nA\t1\t2\nA\t1\tB\t1\n",
            "line 2: image numbers are '1' and 'x', expected integers",
        ),
    ],
)
def test_a_malformed_pair_list_names_the_line(root, text, message):
    (root / "pairs.txt").write_text(text)
    with pytest.raises(ProtocolError) as error:
        read_lfw(root)
    assert str(error.value).startswith(f"{root}/pairs.txt: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


GOOD = "2\t1\nA\t1\t2\nA\t1\tB\t2\nC\t1\t2\nA\t1\tC\t2\n"


def test_a_byte_order_mark_and_windows_line_ends_are_ignored(tmp_path):
    expected = tmp_path / "pairs.txt"
    expected.write_text(GOOD)
    odd = tmp_path / "odd.txt"
    odd.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert read_pairs(odd).names.tolist() == read_pairs(expected).names.tolist()


LONG = "x" * 300


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2\t1\n", "\u00b2\t1\n", "line 1: found '\u00b2 1', expected the number of folds"),
        (
            "2\t1\n",
            "9" * 5000 + "\t1\n",
            "line 1: found '9999999999999999999999999999999999999999', expected the number of folds",
        ),
        ("A\t1\t2", "A\t1\t\u00b2", "line 2: image numbers are '1' and '\u00b2', expected integers"),
        (
            "A\t1\t2",
            "A\t1\t" + "9" * 5000,
            "line 2: image numbers are '1' and '9999999999999999999999999999999999999999'",
        ),
        ("A\t1\t2", "A\0\t1\t2", "line 2: found 'A\\x00', expected a person's name of 1 to 240 bytes"),
        ("A\t1\t2", f"{LONG}\t1\t2", f"line 2: found '{LONG[:40]}', expected a person's name of 1 to 240 bytes"),
        ("A\t1\t2", "../A\t1\t2", "line 2: found '../A', expected a person's name"),
        ("A\t1\t2", "\t1\t2", "line 2: found '', expected a person's name"),
        ("A\t1\t2", "A\t1\t01", "line 2: image 1 of A twice, expected two images"),
        ("A\t1\tC\t2", "A\t1\tA\t2", "line 5: both images of an impostor pair are of A, expected two people"),
        ("A\t1\tC\t2", "\n \n\nA\t1\tA\t2", "line 8: both images of an impostor pair are of A"),
        ("2\t1\n", "\n\n2\tx\n", "line 3: found '2 x', expected the number of folds"),
    ],
)
def test_an_invalid_line_is_named(tmp_path, old, new, message):
    path = tmp_path / "pairs.txt"
    assert GOOD.count(old) == 1
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ProtocolError) as error:
        read_pairs(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert len(str(error.value)) < len(str(path)) + 200
