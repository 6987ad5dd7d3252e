"""LFW's pair lists: folds, and line numbers in errors."""

from __future__ import annotations

import codecs
import gzip

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


def crlf(text):
    return text.replace("\n", "\r\n")


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + crlf(GOOD).encode(),
        crlf(GOOD).encode("utf-16"),
        codecs.BOM_UTF16_BE + GOOD.encode("utf-16-be"),
        GOOD.encode("utf-16-le"),
        GOOD.encode("utf-32"),
        GOOD.replace("\n", "\r").encode(),
        GOOD.replace("\n", " \t \n").encode(),
        GOOD.replace("\n", "\n\n \t\n").encode(),
        GOOD.replace("\t", " ").encode(),
        GOOD.replace("\t", "   ").replace("\n", " \n").encode(),
        GOOD.replace("\t", ",").replace("\n", ",,\n").encode(),
        GOOD.replace("\t", "; ").encode(),
        GOOD.replace("\t1\t", "\t 1 ").encode(),
        GOOD.strip().encode(),
        f"# folds and pairs\n #\tA\t1\t2\n#A, but not\n{GOOD}# the end, of 4 pairs\n#".encode(),
    ],
)
def test_encodings_line_ends_separators_blank_lines_and_comments_make_no_difference(tmp_path, data):
    expected, odd = tmp_path / "pairs.txt", tmp_path / "odd.txt"
    expected.write_text(GOOD)
    odd.write_bytes(data)
    assert read_pairs(odd).names.tolist() == read_pairs(expected).names.tolist()


@pytest.mark.parametrize("end", ["", "\t", " \t\t"])
@pytest.mark.parametrize("separator", ["\t", ";"])
def test_names_may_contain_what_does_not_separate(tmp_path, separator, end):
    path = tmp_path / "pairs.txt"
    text = "2\t1\nNym, Ann\t1\t2\nNym, Ann\t1\tB #2\t2\n#C\t1\t2\n#C\t1\t D  7 \t2\n"
    path.write_text(text.replace("\t", separator).replace("\n", f"{end}\n"))
    people = [["Nym, Ann", "Nym, Ann"], ["Nym, Ann", "B #2"], ["#C", "#C"], ["#C", "D  7"]]
    assert read_pairs(path).names[..., 0].tolist() == people


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzip.compress(GOOD.encode(), mtime=0), "packed by gzip; unpack it first"),
        (b"\xff\xfe\x00\xd8" + GOOD.encode("utf-16-le"), "begins as UTF-16 text, but is not; save it as UTF-8"),
        (GOOD.replace("C\t1", "\u00c9\t1").encode("latin-1"), "line 4: not UTF-8 text; save it as UTF-8"),
    ],
)
def test_another_encoding_is_named_with_the_remedy(tmp_path, data, message):
    (tmp_path / "pairs.txt").write_bytes(data)
    with pytest.raises(ProtocolError) as error:
        read_pairs(tmp_path / "pairs.txt")
    assert str(error.value).startswith(f"{tmp_path / 'pairs.txt'}: not readable as text ({message}")


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
        ("A\t1\tC\t2", "A", "line 5: 1 field, expected an impostor pair (name, i, name, j), separated by tabs"),
        ("A\t1\t2", "A B 1 2", "line 2: 4 fields, expected a genuine pair (name, i, j), separated by tabs"),
        ("A\t1\tC\t2", "\n# C\n\nA\t1\tA\t2", "line 8: both images of an impostor pair are of A"),
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
