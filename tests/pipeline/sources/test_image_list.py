"""Lists of images in every form."""

from __future__ import annotations

import contextlib
import json
import os

import numpy as np
import pyarrow as pa
import pytest

from pipeline.build import options_for
from pipeline.images.lookup import find_entry
from pipeline.sources.huggingface import HuggingFace
from pipeline.sources.image_list import ImageListSource
from pipeline.sources.image_table import read_image_table
from pipeline.sources.labels import image_keys
from pipeline.sources.source import SourceError
from pipeline.tables.landmark_table import POINT_NAMES
from tests.pipeline.sources.archives import as_csv, face_table, parquet, stored, written
from tests.processes import error_of
from tests.shard_sets import rejected

PATHS, LABELS = ["n1/a.jpg", "n1/b c.png", "n2/c.jpg"], ["0", "0", "1"]
POINTS = [[float(10 * row + column) for column in range(10)] for row in range(3)]


PAIRS = list(zip(PATHS, LABELS, strict=True))
NUMBERED = [(*pair, *points) for pair, points in zip(PAIRS, POINTS, strict=True)]
TEXTS = {
    "comma": as_csv(["path", "identity"], PAIRS),
    "tab, other names": as_csv(["Label", "x", "FILE_NAME"], [(label, "?", path) for path, label in PAIRS], "\t"),
    "semicolon, no header": as_csv(None, PAIRS, ";"),
    "label first": as_csv(None, [(label, path) for path, label in PAIRS]),
    "blanks": "".join(f"{path} {label}\n" for path, label in PAIRS),
    "MXNet": "".join(f"{row}\t{label}\t{path}\n" for row, (path, label) in enumerate(PAIRS)),
    "insightface": "".join(f"0\t{path}\t{label}\n" for path, label in PAIRS),
    "comments and Windows": "\ufeff# faces\r\n\r\npath,label\r\n"
    + as_csv(None, PAIRS).replace("\n", "\r\n")
    + "# end\r\n",
    "pandas": as_csv(["", "path", "label"], [(row, *pair) for row, pair in enumerate(PAIRS)]),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_every_form_of_text_is_read(tmp_path, text):
    table = read_image_table(written(tmp_path / "a.txt", text))
    assert (table.paths.to_pylist(), table.identities.to_pylist()) == (PATHS, LABELS)
    assert table.points is None


@pytest.mark.parametrize("text", ["./n1/a.jpg,1\n", ".\\n1\\a.jpg 1\n", "1\t./n1/a.jpg\n"])
def test_a_bare_row_may_begin_with_this_folder(tmp_path, text):
    table = read_image_table(written(tmp_path / "a.txt", text))
    assert (table.paths[0].as_py().replace("\\", "/"), table.identities.to_pylist()) == ("./n1/a.jpg", ["1"])


def tables_with_points(folder):
    header = ["path", "identity", *(name.lower() for name in POINT_NAMES)]
    yield written(folder / "header.csv", as_csv(header, NUMBERED))
    yield written(folder / "bare.csv", as_csv(None, NUMBERED))
    yield written(folder / "blanks.txt", "".join(" ".join(map(str, row)) + "\n" for row in NUMBERED))
    comma = [[str(value).replace(".", ",") for value in row[2:]] for row in NUMBERED]
    yield written(
        folder / "decimal.csv", as_csv(header, [(*pair, *row) for pair, row in zip(PAIRS, comma, strict=True)], ";")
    )
    yield written(
        folder / "quoted.csv", as_csv(header, [(*pair, *row) for pair, row in zip(PAIRS, comma, strict=True)])
    )
    records = [{"file_name": path, "label": int(label), "landmarks": points} for path, label, *points in NUMBERED]
    yield written(folder / "a.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    yield parquet(folder / "flat.parquet", path=PATHS, label=[0, 0, 1], landmarks=POINTS)
    pairs = np.array(POINTS).reshape(3, 5, 2).tolist()
    yield parquet(folder / "pairs.parquet", image=PATHS, identity=pa.array(LABELS).dictionary_encode(), landmarks=pairs)
    columns = dict(zip(POINT_NAMES, np.array(POINTS).T.tolist(), strict=True))
    yield parquet(folder / "columns.parquet", path=PATHS, label=[0.0, 0.0, 1.0], **columns)


def test_points_are_read_in_every_form(tmp_path):
    found = list(tables_with_points(tmp_path))
    assert len(found) == 9
    for path in found:
        table = read_image_table(path)
        assert (table.paths.to_pylist(), table.identities.to_pylist()) == (PATHS, LABELS), path
        assert table.points is not None, path
        assert table.points.tolist() == POINTS, path


def test_the_first_of_some_records_may_lack_fields(tmp_path):
    records = [{"path": "a.jpg", "label": 1}, {"path": "b.jpg", "label": 2, "split": "x", "landmarks": POINTS[0]}]
    table = read_image_table(written(tmp_path / "a.jsonl", "".join(json.dumps(record) + "\n" for record in records)))
    assert table.points is not None
    assert table.splits is not None
    assert np.isnan(table.points[0]).all()
    assert table.points[1].tolist() == POINTS[0]
    assert table.splits.to_pylist()[1] == "x"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "empty; expected the header path,identity"),
        ("a.csv", b"path,identity\n", "no rows; expected the header"),
        ("a.csv", b"path,age\nx.jpg,3\n", "line 1: found 'path,age' (no column identity), expected the header"),
        ("a.csv", b"label,age\n1,3\n", "line 1: found 'label,age' (no column path), expected the header"),
        (
            "a.csv",
            b"path,label,p1x\nx.jpg,3,4\n",
            "line 1: found 'path,label,p1x' (1 of the ten columns P1X, ..., P5Y)",
        ),
        ("a.csv", b"path,label\na.jpg,1\nb.jpg\n", "line 3: 1 field, expected 2"),
        ("a.csv", b"path,label\na.jpg,1\n\xff.jpg,2\n", "line 3: not UTF-8 text"),
        ("a.txt", b"a.jpg 1\nb.jpg\n", "line 2: 1 field, expected 2"),
        ("a.csv", b"a.jpg,b.jpg\n", "line 1: found 'a.jpg,b.jpg' (no column path), expected the header"),
        ("a.csv", b"\x1f\x8b\x08\x00", "packed by gzip; unpack it first"),
        ("a.jsonl", b'{"path": "a.jpg", "label": 1}\nx\n', "line 2: no JSON object; expected one a line"),
        ("a.jsonl", b"[" * 100_000, "line 1: no JSON object"),
        ("a.jsonl", b'{"path": "a.jpg"}', "no column identity; found path, expected"),
        ("a.parquet", b"PAR1 nonsense", "damaged ("),
    ],
)
def test_invalid_tables_are_a_one_line_error(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError) as error:
        read_image_table(path)
    assert str(error.value).startswith(f"{path}: {message}")
    assert "\n" not in str(error.value)


def test_damaged_parquet_gives_one_line(tmp_path):
    whole = parquet(tmp_path / "a.parquet", path=PATHS * 50, label=[1] * 150).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        (tmp_path / "b.parquet").write_bytes(data)
        with contextlib.suppress(SourceError):
            assert len(read_image_table(tmp_path / "b.parquet").paths) == 150
    with pytest.raises(SourceError, match="no column identity; found path, expected the header"):
        read_image_table(parquet(tmp_path / "c.parquet", path=PATHS))


def test_parquet_with_the_images_inside_is_refused(tmp_path):
    path = parquet(tmp_path / "a.parquet", image=[{"bytes": b"x", "path": "a.jpg"}], label=[1])
    with pytest.raises(SourceError, match="its column image holds the images themselves; save them as files first"):
        read_image_table(path)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_list_with_points_gives_the_images_of_the_same_faces(vggface2, tmp_path, form):
    faces = face_table(vggface2)
    names, people = list(faces), [name.split("/")[0] for name in faces]
    if form == "csv":
        rows = [(name, person, *points) for (name, points), person in zip(faces.items(), people, strict=True)]
        path = written(tmp_path / "a.csv", as_csv(["path", "identity", *POINT_NAMES], rows))
    else:
        path = parquet(tmp_path / "a.parquet", path=names, identity=people, landmarks=list(faces.values()))
    found = stored("list", vggface2 / "train", tmp_path / "set", lists=[path])
    expected = stored("vggface2", vggface2, tmp_path / "reference")
    assert len(found) == 45
    assert [(row["key"], row["xxh3"], row["label"]) for row in found] == [
        (row["key"], row["xxh3"], row["label"]) for row in expected
    ]


def test_a_list_without_points_takes_a_landmark_table_or_none(vggface2, tmp_path):
    path = written(tmp_path / "a.txt", "".join(f"train/{name} {name[6]}\n" for name in face_table(vggface2)))
    table = vggface2 / "bb_landmark" / "loose_landmark_train.csv"
    aligned = stored("list", vggface2, tmp_path / "aligned", lists=path, landmarks=table)
    expected = stored("vggface2", vggface2, tmp_path / "reference")
    assert [row["xxh3"] for row in aligned] == [row["xxh3"] for row in expected]
    assert {row["identity"] for row in aligned} == set("123456789")
    assert len(stored("list", vggface2, tmp_path / "whole", lists=path, template="none")) == 45
    with pytest.raises(SourceError, match="states no landmarks; --aligned says which template"):
        stored("list", vggface2, tmp_path / "none", lists=path)


def test_paths_stay_below_the_root(vggface2, tmp_path):
    root = vggface2 / "train"
    (tmp_path / "secret.jpg").write_bytes((root / "n000001" / "0001_01.jpg").read_bytes())
    lines = [
        "path,identity",
        f"{root}/n000001/0001_01.jpg,a",
        "./n000001//0002_01.jpg,a",
        "n000002/../n000001/0003_01.jpg,a",
        r"n000001\0004_01.jpg,a",
        "../../secret.jpg,b",
        f"{tmp_path}/secret.jpg,c",
        "/,d",
        ",e",
        "n000001/absent.jpg,a",
        "n000001/0005_01.jpg,",
    ]
    path = written(tmp_path / "a.csv", "\n".join(lines) + "\n")
    found = stored("list", root, tmp_path / "set", lists=path, template="none")
    assert [row["key"] for row in found] == [f"a/000{number}_01" for number in range(1, 5)]
    reasons = rejected(tmp_path / "set")
    assert {key: status for key, (status, _) in reasons.items()} == {
        "b/secret": "bad-record",
        "c/secret": "bad-record",
        "d/-": "bad-record",
        "e/-": "bad-record",
        "a/absent": "missing-file",
        "-/0005_01": "bad-record",
    }
    assert reasons["b/secret"][1] == f"../../secret.jpg: leads out of {root}"
    assert reasons["e/-"][1] == "no path is stated"
    assert reasons["-/0005_01"][1] == "no identity is stated"
    everything = stored("list", "/", tmp_path / "all", lists=path, template="none")  # the user says so
    assert [row["key"] for row in everything] == ["a/0001_01", "c/secret"]


def test_an_absent_disk_is_no_list_of_missing_images(tmp_path):
    path = written(tmp_path / "a.csv", as_csv(None, PAIRS))
    with pytest.raises(
        SourceError, match=r"holds no image of 3 images of .*a.csv looked up, such as n1/a.jpg; paths are"
    ):
        ImageListSource().rows(tmp_path, [], aligning=False, lists=[path])


def test_splits_are_chosen_and_reported(vggface2, tmp_path, capsys):
    names = list(face_table(vggface2))
    rows = [(name, name[:7], "train" if number % 5 else "test") for number, name in enumerate(names)]
    path = written(tmp_path / "a.csv", as_csv(["path", "identity", "split"], rows))

    def count(**options):
        return len(ImageListSource().rows(vggface2 / "train", [], aligning=False, lists=[path], **options).keys)

    assert count() == 45
    assert "rows of several splits (test 9, train 36), all used; --split chooses one" in capsys.readouterr().err
    assert count(split="train") == 36
    assert "a.csv: 36 rows of split train, of test 9, train 36" in capsys.readouterr().err
    with pytest.raises(SourceError, match="no row of split val; it has test 9, train 36"):
        count(split="val")
    bare = written(tmp_path / "b.csv", as_csv(None, PAIRS))
    with pytest.raises(SourceError, match="has no column split; leave out --split train"):
        ImageListSource().rows(vggface2, [], aligning=False, lists=[bare], split="train")


def test_a_changed_list_is_another_build(vggface2, tmp_path):
    path = written(tmp_path / "a.csv", as_csv(None, [(name, name[:7]) for name in face_table(vggface2)]))
    options = {"template": "none", "lists": path}
    stored("list", vggface2 / "train", tmp_path / "set", **options)
    stored("list", vggface2 / "train", tmp_path / "set", **options)
    written(path, path.read_text().replace("n000002,", "n000003,") + "n000001/0001_01.jpg,x\n")
    with pytest.raises(Exception, match="contains a build with different --list, images"):
        stored("list", vggface2 / "train", tmp_path / "set", **options)


def test_images_of_one_name_are_distinguished():
    names = pa.array(["a/1.jpg", "b/1.jpg", "c/1.png", "c/d/2.tar.jpg", "1.jpg"])
    identities = pa.array(["x", "x", "y", "u/v", "x"])
    assert image_keys(names, identities).to_pylist() == ["x/a%2F1", "x/b%2F1", "y/1", "u%2Fv/2.tar", "x/1"]


def test_the_command_needs_a_list(run, vggface2):
    assert error_of(run("build-shards", "--source", "list", "--root", vggface2)).endswith(
        "--source list: needs --list FILE (CSV, JSON lines or Parquet), which names the images"
    )
    assert error_of(run("build-shards", "--root", vggface2, "--list", "a.csv")) == (
        "Error: --source vggface2 takes no --list; leave it out"
    )


def test_landmarks_are_found_for_the_images_of_a_list_only(vggface2, tmp_path):
    path = written(tmp_path / "a.csv", "path,identity\nn1/a.jpg,1\n../b.jpg,1\nc.jpg,\n")
    assert ImageListSource().image_folders(tmp_path, lists=[path]) == [tmp_path / "n1" / "a.jpg", tmp_path / "c.jpg"]
    assert HuggingFace().image_folders(vggface2) == [vggface2 / "train"]


@pytest.mark.parametrize("source", ["list", "huggingface", "webdataset"])
def test_a_missing_root_is_reported(tmp_path, source):
    with pytest.raises(SourceError, match=f"^{tmp_path}/none: not "):
        options_for(source, root=tmp_path / "none", out=tmp_path / "o", template="none")


def test_names_in_another_normal_form_are_found(vggface2, tmp_path):
    root = vggface2 / "train"
    os.rename(root / "n000001", root / "Zoe\u0308")  # as macOS has it
    path = written(tmp_path / "a.csv", "path,identity\nZo\u00eb/0001_01.jpg,z\nn000002/0001_01.jpg,y\n")
    assert find_entry(root, "Zo\u00eb") is not None
    assert [row["key"] for row in stored("list", root, tmp_path / "set", lists=path, template="none")] == [
        "y/0001_01",
        "z/0001_01",
    ]
