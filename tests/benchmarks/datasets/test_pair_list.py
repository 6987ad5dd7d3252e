"""bench pairs: lists in any form, and lists that cannot be right."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.datasets.pair_list import read_pair_list
from benchmarks.errors import ProtocolError
from tests.benchmarks.datasets.lists import written

WORDS = [("1", "0"), ("same", "different"), ("True", "False"), ("genuine", "impostor"), ("1", "-1"), ("1.0", "0.0")]


@pytest.mark.parametrize("number", range(len(WORDS)))
def test_all_ways_of_writing_a_list_are_one(lfw, rows, tmp_path, number):
    """Separators, headers, orders of columns, truth values, encodings and kinds of paths."""
    expected = read_pair_list(written(tmp_path / "x.csv", rows), lfw / "lfw")
    said = [(first, second, WORDS[number][not same], fold) for first, second, same, fold in rows]
    forms = [
        (["{0},{1},{2}\n", "{0}\t{1}\t{2}\n", "{0};{1};{2}\n", "{0} {1} {2}\n", "{2},{0},{1}\n", "{2} {0} {1}\n"], ""),
        (['"{0}","{1}", {2} ,{3}\n', "{0};{1};{2};{3};;\n"], "# pairs\n"),
        (["{0},{1},{2},,\n"], ""),
        (["{0},{1},{2},,\n"], "path1,path2,same,,\n"),
        (["{3}\t{0}\tx\t{2}\t{1}\n"], "Fold\tImage_1\tid\tis_same\tImage_2\n\n"),
        (["{0},{2},{1}\r\n"], "\ufefffirst,label,second\r\n"),
        (["{2},{0},{1}\n"], "target,img1_path,img2_path\n"),
        (["{2};{0};{1}\n"], "match;First Image;Second Image\n"),
        (["./{0},./{1},{2}\n", ".\\{0} .\\{1} {2}\n"], ""),
        ([f"{lfw}/lfw/{{0}},./{{1}},{{2}}\n"], "left,right,match\n"),
    ]
    for lines, header in forms:
        for form in lines:
            found = read_pair_list(written(tmp_path / "y.csv", said, form, header), lfw / "lfw")
            assert found.paths == expected.paths, form
            np.testing.assert_array_equal(found.members, expected.members)
            np.testing.assert_array_equal(found.genuine, expected.genuine)
            assert (found.folds is None) == ("{3}" not in form)
            assert found.folds is None or found.folds.tolist() == [row[3] for row in rows]
    text = written(tmp_path / "z.csv", said).read_text()
    for data in (text.encode("utf-16"), text.replace("/", "\\").encode(), text.replace("\n", "\n\n#\n").encode()):
        (tmp_path / "z.csv").write_bytes(data)
        assert read_pair_list(tmp_path / "z.csv", lfw / "lfw").paths == expected.paths


@pytest.mark.parametrize("header", ["name,imagenum1,imagenum2,", "name;imagenum1;name.1;imagenum2"])
def test_the_header_of_lfw_lists_on_kaggle_is_no_pair(tmp_path, header):
    (tmp_path / "A").mkdir()
    (tmp_path / "A" / "A_0001.jpg").touch()
    (tmp_path / "a.csv").write_text(f"{header}\nA,1,2,\nA,1,B,2\n")
    found = read_pair_list(tmp_path / "a.csv", tmp_path)
    assert found.genuine.tolist() == [True, False]
    assert found.people == ["A", "A", "B"]


@pytest.mark.parametrize("kind", [bool, np.int64, float, str])
def test_parquet_holds_truth_values_of_any_type(lfw, rows, tmp_path, kind):
    first, second, same, fold = zip(*rows, strict=True)
    table = pa.table({"path_a": first, "path_b": second, "label": np.array(same).astype(kind), "fold": fold})
    pq.write_table(table, tmp_path / "x.parquet")
    found = read_pair_list(tmp_path / "x.parquet", lfw / "lfw")
    assert found.genuine.tolist() == list(map(bool, same))
    assert found.folds.tolist() == list(fold)


def test_images_are_found_whatever_their_case_extension_and_normal_form(tmp_path):
    root = tmp_path / "root"
    for name in ("Ann\u00e9/A 1.JPG", "bob/x.png", "deep/er/c.tif", "d.jpeg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    pairs = ["anne\u0301/a 1.jpg,Bob/x.jpg,1", "DEEP/er/c,d.jpg,0", "deep/er/c.tif,none/d.jpg,0"]
    (tmp_path / "a.csv").write_text("a,b,same\n" + "\n".join(pairs))
    found = read_pair_list(tmp_path / "a.csv", root).paths
    names = ["Ann\u00e9/A 1.JPG", "bob/x.png", "deep/er/c.tif", "d.jpeg", "none/d.jpg"]
    assert sorted(found) == sorted(root / name for name in names)


@pytest.mark.parametrize(
    "layout",
    ["{name}/{name}_{number:04d}.png", "{name}/{number}.jpg", "all/{name}_{number}.JPG", "{name}/img_{number:02d}.bmp"],
)
@pytest.mark.parametrize("header", ["2\t2\n", "4\n", ""])
def test_names_and_numbers_are_found_in_any_layout(tmp_path, layout, header):
    pairs = [("A B", 1, "A B", 2), ("C", 1, "C", 3), ("A B", 1, "C", 2), ("C", 3, "D_2", 1)] * 2
    for name, number in {(pair[at], pair[at + 1]) for pair in pairs for at in (0, 2)}:
        path = tmp_path / "root" / layout.format(name=name, number=number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    lines = [f"{a}\t{i}\t{j}" if a == b else f"{a}\t{i}\t{b}\t{j}" for a, i, b, j in pairs]
    (tmp_path / "a.txt").write_text(header + "\n".join(lines) + "\n")
    found = read_pair_list(tmp_path / "a.txt", tmp_path / "root")
    names = [(str(found.paths[first]), str(found.paths[second])) for first, second in found.members]
    assert names == [
        tuple(str(tmp_path / "root" / layout.format(name=name, number=number)) for name, number in ((a, i), (b, j)))
        for a, i, b, j in pairs
    ]
    assert found.genuine.tolist() == [a == b for a, _, b, _ in pairs]
    assert (found.folds is None) == (header != "2\t2\n")
    assert found.people[found.members[3, 1]] == "D_2"


def test_a_number_that_two_files_have_is_an_error(tmp_path):
    for folder in ("lfw/A", "lfw-funneled/A"):
        (tmp_path / "root" / folder).mkdir(parents=True)
        (tmp_path / "root" / folder / "A_0001.jpg").touch()
        (tmp_path / "root" / folder / "A_0002.jpg").touch()
    (tmp_path / "a.txt").write_text("A\t1\t2\n")
    with pytest.raises(ProtocolError, match=r"image 1 of A may be .* or .*; name the right folder with --root"):
        read_pair_list(tmp_path / "a.txt", tmp_path / "root")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; expected the header path1,path2,same"),
        ("# nothing\n", "empty; expected the header"),
        ("a,b\n", "line 1: found 'a,b', expected the header"),
        ("a.jpg,b.jpg,perhaps\n", "line 1: found 'a.jpg,b.jpg,perhaps' (no columns path1 and path2), expected"),
        ("path1,path2,x\na.jpg,b.jpg,1\n", "line 1: found 'path1,path2,x' (no column same), expected"),
        ("a.jpg,b.jpg,1\na.jpg,c.jpg,?\n", "pair 2 (a.jpg, c.jpg): found '?', expected 1 or 0, same or different"),
        ("a.jpg,b.jpg,1\na.jpg,c.jpg,2\n", "pair 2 (a.jpg, c.jpg): found '2', expected 1 or 0"),
        ("a.jpg,b.jpg,1\na.jpg,c.jpg\n", "line 2: 2 fields, expected 3"),
        ("a.jpg,b.jpg,1\na.jpg,../c.jpg,0\n", "pair 2: ../c.jpg: leads out of {root}; name a --root that holds all"),
        ("a.jpg,b.jpg,1\n/etc/c.jpg,a.jpg,0\n", "pair 2: /etc/c.jpg: leads out of {root}"),
        ("a.jpg,b.jpg,1\na.jpg,d/../../c.jpg,0\n", "pair 2: d/../../c.jpg: leads out of {root}"),
        ("a.jpg,b.jpg,1\na.jpg,..\\c.jpg,0\n", "pair 2: ../c.jpg: leads out of {root}"),
        ("path1,path2,same\na.jpg,,0\n", "pair 1: no path is stated, expected two paths"),
        ("a.jpg,b.jpg,1\na.jpg,./A.jpg,0\n", "pair 2: {root}/a.jpg twice, expected two images; leave the pair out"),
        (
            "a.jpg,b.jpg,1\nb.jpg,a.jpg,0\n",
            "pairs 1 and 2 are the same two images, one genuine and one not; correct one",
        ),
        ("path1,path2,same,fold\na.jpg,b.jpg,1,\n", "pair 1: no fold; fill the column fold in every row"),
        ("a.jpg,b.jpg,1,3\na.jpg,c.jpg,0,3\n", "the column fold has 1 value"),
        ("2\na 1 2\na 1 b 2\n", "2 pairs, but line 1 states 2 genuine and as many impostor pairs"),
        ("1\na 1 2\na 1 b x\n", "line 3: image numbers are '1' and 'x', expected integers"),
        ("a 1 2\nb 1 2\nc\n", "line 3: 1 field, expected an impostor pair (name, i, name, j)"),
    ],
)
def test_a_list_that_cannot_be_right_names_the_pair(tmp_path, text, message):
    root = tmp_path / "root"
    root.mkdir()
    for name in "abc":
        (root / f"{name}.jpg").touch()
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ProtocolError) as error:
        read_pair_list(tmp_path / "list.csv", root)
    assert str(error.value).startswith(f"{tmp_path}/list.csv: {message.format(root=root)}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a.jpg,\u00e9.jpg,1\n".encode("latin-1"), "line 1: not UTF-8 text; save it as UTF-8"),
        (b"a.jpg,b.jpg,1\na.jpg,\xff.jpg,0\n", "line 2: not UTF-8 text"),
        (b"\x1f\x8b" + bytes(50), "packed by gzip; unpack it first"),
        (b"PAR1" + bytes(50), "not a table of pairs ("),
    ],
)
def test_a_file_of_another_kind_is_one_line(tmp_path, data, message):
    (tmp_path / "list.csv").write_bytes(data)
    with pytest.raises(ProtocolError) as error:
        read_pair_list(tmp_path / "list.csv", tmp_path)
    assert str(error.value).startswith(f"{tmp_path}/list.csv: {message}")
