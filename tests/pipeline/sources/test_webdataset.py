"""WebDataset tars: what other tools write, our own shards, damaged and hostile tars."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset

from pipeline.build import build, options_for
from pipeline.sources import webdataset as webdataset_source
from pipeline.sources.source import SourceError
from pipeline.sources.tar_members import parse_label
from pipeline.sources.webdataset import WebDataset
from pipeline.tables.landmark_table import LandmarkError
from tests.pipeline.sources.archives import face_table, stored
from tests.pipeline.sources.tars import JPEG, faces, keys, rows_of, write_tar
from tests.shard_sets import build_options, rejected


def test_what_the_webdataset_library_writes_gives_the_images_of_the_same_faces(vggface2, tmp_path):
    """Each tar has the same keys; labels are numbers, and the points are in the JSON."""
    (tmp_path / "tars").mkdir()
    people = sorted({name.split("/")[0] for name in face_table(vggface2)})
    with webdataset.ShardWriter(str(tmp_path / "tars" / "faces-%03d.tar"), maxcount=10, verbose=0) as sink:
        for number, (name, jpeg, points) in enumerate(faces(vggface2)):
            label = people.index(name.split("/")[0])
            pairs = np.array(points).reshape(5, 2).tolist()
            sink.write({"__key__": f"{number % 10:04d}", "jpg": jpeg, "cls": label, "json": {"landmarks": pairs}})
    found = stored("webdataset", tmp_path / "tars", tmp_path / "set")
    expected = stored("vggface2", vggface2, tmp_path / "reference")
    assert len(found) == 45
    assert sorted(row["xxh3"] for row in found) == sorted(row["xxh3"] for row in expected)
    assert {row["identity"] for row in found} == {str(label) for label in range(9)}
    counts = {label: sum(row["identity"] == label for row in found) for label in map(str, range(9))}
    assert set(counts.values()) == {5}
    assert len({row["key"] for row in found}) == 45
    assert rejected(tmp_path / "set") == {}


@pytest.mark.parametrize("landmarks", ["json", "table"])
def test_a_tar_of_folders_is_read_with_landmarks_of_either_kind(vggface2, tmp_path, landmarks):
    members = []
    for name, jpeg, points in faces(vggface2):
        members += [(f"./train/{name}", jpeg)]
        if landmarks == "json":
            members += [(f"./train/{name[:-4]}.json", json.dumps({"kps": points}).encode())]
    path = write_tar(tmp_path / "faces.tar", members)
    tables = [vggface2 / "bb_landmark" / "loose_landmark_train.csv"] if landmarks == "table" else []
    found = stored("webdataset", path, tmp_path / "set", landmarks=tables)
    expected = stored("vggface2", vggface2, tmp_path / "reference")
    assert [(row["key"], row["xxh3"]) for row in found] == [(row["key"], row["xxh3"]) for row in expected]


def test_our_own_shards_are_read_back_as_they_are(shard_set, tmp_path, capsys):
    found = stored("webdataset", shard_set, tmp_path / "set", aligned="seed", size=128)
    expected = sorted(pq.read_table(shard_set / "index.parquet").to_pylist(), key=lambda row: row["key"])
    names = ("key", "identity", "label", "xxh3", "size")
    assert [[row[name] for name in names] for row in found] == [[row[name] for name in names] for row in expected]
    assert len(found) == 45
    assert "ignored 16 other entries (README.md, index.parquet, manifest.json, ...)" in capsys.readouterr().err


def test_a_resumed_build_is_the_same_byte_by_byte(shard_set, tmp_path):
    options = {"root": shard_set, "template": "none", "images_per_shard": 12, "executor": "serial"}
    build(options_for("webdataset", out=tmp_path / "a", **options))
    build(options_for("webdataset", out=tmp_path / "b", **options))
    for path in sorted((tmp_path / "b").glob("shard-000002.*")):
        path.unlink()
    (tmp_path / "b" / "manifest.json").unlink()
    build(options_for("webdataset", out=tmp_path / "b", **options))
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) > 15
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    (shard_set / "shard-000003.tar").rename(shard_set / "x.tar")
    with pytest.raises(Exception, match="contains a build with different tars in --root"):
        build(options_for("webdataset", out=tmp_path / "b", **options))


@pytest.mark.parametrize(
    ("content", "suffix", "expected"),
    [
        (b"17\n", ".cls", ("17", None)),
        (b" Anna B. \r\n", ".txt", ("Anna B.", None)),
        ("\u00e9\u4e2d".encode(), ".txt", ("\u00e9\u4e2d", None)),
        (b'{"label": 3, "identity": "x"}', ".json", ("x", None)),
        (b'{"label": 3.0}', ".json", ("3", None)),
        (b'{"class": "a/b", "landmarks": [0,1,2,3,4,5,6,7,8,9]}', ".json", ("a/b", list(range(10)))),
        (b'{"cls": 1, "landmarks": [[0,1],[2,3],[4,5],[6,7],[8,9]]}', ".json", ("1", list(range(10)))),
        (b'{"cls": 1, "landmarks": [1, 2]}', ".json", ("1", None)),
        (b'{"cls": 1, "landmarks": ["0",1,2,3,4,5,6,7,8,9]}', ".json", ("1", None)),
        (b'"x"', ".json", ("x", None)),
    ],
)
def test_labels(content, suffix, expected):
    label = parse_label(content, suffix)
    assert (label.identity, label.points) == expected


@pytest.mark.parametrize(
    ("content", "suffix", "problem"),
    [
        (b"", ".cls", "its .cls is not the name of an identity in one line"),
        (b"a face\nof somebody", ".txt", "its .txt is not the name"),
        (b"x" * 201, ".txt", "its .txt is not the name"),
        (b"\xff", ".cls", "its .cls is damaged"),
        (b"{", ".json", "its .json is damaged"),
        (b"[" * 100_000, ".json", "its .json is damaged"),
        (b'{"label": true}', ".json", "its .json has a label that is not a name"),
        (b'{"class": [1]}', ".json", "its .json has a class that is not a name"),
        (b"[1]", ".json", "its .json is not an object"),
        (b"0" * ((1 << 20) + 1), ".cls", "its .cls has more than 1,048,576 bytes"),
    ],
)
def test_odd_labels_are_reported(content, suffix, problem):
    label = parse_label(content, suffix)
    assert label.identity is None
    assert label.problem.startswith(problem)


def test_rows_without_identity_are_rejected_with_a_reason(vggface2, tmp_path):
    (_, jpeg, _), *_ = faces(vggface2)
    path = write_tar(
        tmp_path / "a.tar",
        [("1.jpg", jpeg), ("1.cls", b"7"), ("2.jpg", jpeg), ("3.jpg", jpeg), ("3.txt", b"a\nb"), ("4.cls", b"9")],
    )
    found = stored("webdataset", path, tmp_path / "set", template="none")
    assert [row["key"] for row in found] == ["7/1"]
    assert rejected(tmp_path / "set") == {
        "-/2": ("bad-record", "no identity is stated"),
        "-/3": ("bad-record", "its .txt is not the name of an identity in one line"),
    }


def test_a_name_given_twice_takes_no_label_of_the_other(tmp_path):
    """tar --append adds members of a name that is there."""
    path = write_tar(
        tmp_path / "a.tar",
        [("1.jpg", JPEG), ("1.cls", b"7"), ("1.jpg", JPEG), ("1.cls", b"8"), ("2.jpg", JPEG), ("2.cls", b"7")]
        + [("2.cls", b"7")],
    )
    rows = rows_of(path)
    reason = ("bad-record", "the tar has several .cls of its name, which differ")
    assert keys(rows)[2] == "7/2"
    assert dict(rows.problems) == {0: reason, 1: reason}


def test_images_without_points_are_rejected_when_faces_are_aligned(vggface2, tmp_path):
    (name, jpeg, points), (other, more, _), *_ = faces(vggface2)
    label = json.dumps({"landmarks": points}).encode()
    path = write_tar(tmp_path / "a.tar", [(name, jpeg), (f"{name[:-4]}.json", label), (other, more)])
    found = stored("webdataset", path, tmp_path / "set")
    assert [row["key"] for row in found] == [name[:-4]]
    assert rejected(tmp_path / "set") == {other[:-4]: ("bad-landmarks", "no landmarks are stated")}
    with pytest.raises(SourceError, match="states no landmarks; --aligned says which template aligned crops follow"):
        rows_of(write_tar(tmp_path / "b.tar", [(name, jpeg)]), aligning=True)


def test_identities_are_safe_keys(tmp_path):
    members = []
    for number, name in enumerate(["a/b", "a%2Fb", "../x", "\u4e2d", "007", "7", "."]):
        members += [(f"{number}.jpg", JPEG), (f"{number}.txt", name.encode())]
    rows = rows_of(write_tar(tmp_path / "a.tar", members))
    assert keys(rows) == ["a%2Fb/0", "a%252Fb/1", "..%2Fx/2", "\u4e2d/3", "007/4", "7/5", "./6"]


def test_images_of_several_tars_with_one_name_are_distinguished(tmp_path):
    (tmp_path / "tars").mkdir()
    for tar in ("a", "b"):
        write_tar(
            tmp_path / "tars" / f"{tar}.tar",
            [("0.jpg", JPEG), ("0.cls", b"5"), (f"{tar}.jpg", JPEG), (f"{tar}.cls", b"5")],
        )
    assert keys(rows_of(tmp_path / "tars")) == ["5/a%2F0", "5/a", "5/b%2F0", "5/b"]


def test_captions_are_no_identities_where_folders_are(tmp_path):
    members = [("n1/a.jpg", JPEG), ("n1/a.txt", b"a\nface"), ("n2/b.jpg", JPEG), ("n2/b.json", b'{"width": 3}')]
    rows = rows_of(write_tar(tmp_path / "a.tar", members))
    assert (keys(rows), rows.problems) == (["n1/a", "n2/b"], {})


def test_folders_name_identities_if_they_tell_the_same_as_labels(tmp_path):
    def tar(*labels):
        members = [("n1/a.jpg", JPEG), ("n1/b.jpg", JPEG), ("n2/c.jpg", JPEG)]
        stems = [name[:-4] for name, _ in members]
        return write_tar(
            tmp_path / "a.tar", [*members, *((f"{stem}.cls", label) for stem, label in zip(stems, labels, strict=True))]
        )

    assert keys(rows_of(tar(b"0", b"0", b"1"))) == ["n1/a", "n1/b", "n2/c"]
    assert keys(rows_of(tar(b"0", b"1", b"1"))) == ["0/a", "1/b", "1/c"]
    assert keys(rows_of(tar(b"0", b"0", b"0"))) == ["0/a", "0/b", "0/c"]


def test_several_images_of_a_sample_share_its_label(tmp_path):
    members = [
        ("x/J. Doe.1.jpg", JPEG),
        ("x/0.face.png", JPEG),
        ("x/0.orig.JPG", JPEG),
        ("x/0.cls", b"3"),
        ("x/J. Doe.1.cls", b"4"),
    ]
    assert keys(rows_of(write_tar(tmp_path / "a.tar", members))) == ["4/J. Doe.1", "3/0.face", "3/0.orig"]


@pytest.mark.heavy
def test_several_processes_list_the_same(tmp_path, monkeypatch, capsys):
    (tmp_path / "tars").mkdir()
    for name in "abc":
        label = json.dumps({"label": name, "kps": list(range(10))} if name == "b" else {"label": name}).encode()
        write_tar(tmp_path / "tars" / f"{name}.tar", [("0.jpg", JPEG), ("0.json", label), (f"{name}.npy", b"")])
    alone = rows_of(tmp_path / "tars")
    monkeypatch.setattr(webdataset_source, "MIN_PARALLEL_BYTES", 0)
    together = rows_of(tmp_path / "tars")
    assert "list tars: 3/3 tars" in capsys.readouterr().err
    assert keys(alone) == keys(together) == ["a/0", "b/0", "c/0"]
    assert (alone.places, alone.others, alone.parts) == (together.places, together.others, together.parts)
    (tmp_path / "tars" / "b.tar").write_bytes(b"no tar at all " * 100)
    with pytest.raises(SourceError, match=r"b\.tar: damaged or cut"):
        rows_of(tmp_path / "tars")


def test_normalised_points_are_refused(tmp_path):
    label = json.dumps({"label": 1, "landmarks": [0.3, 0.4, 0.6, 0.4, 0.5, 0.6, 0.4, 0.8, 0.6, 0.8]}).encode()
    path = write_tar(tmp_path / "a.tar", [("0.jpg", JPEG), ("0.json", label)])
    with pytest.raises(LandmarkError, match=r"so they are normalised; expected px"):
        rows_of(path, aligning=True)


def test_options_that_do_not_apply_are_refused(tmp_path, vggface2):
    write_tar(tmp_path / "a.tar", [("n/a.jpg", JPEG)])
    with pytest.raises(SourceError, match="--source webdataset takes no --list; leave it out"):
        options_for("webdataset", root=tmp_path / "a.tar", out=tmp_path / "o", lists=["a.csv"])
    with pytest.raises(SourceError, match="--source vggface2 takes no --split; leave it out"):
        build_options(vggface2, tmp_path / "o", split="train")


def test_landmarks_are_not_found_in_tars(tmp_path):
    with pytest.raises(
        SourceError, match="--landmarks auto finds landmarks of image files, not of images in tars; unpack"
    ):
        WebDataset().image_folders(tmp_path)


def test_splits_are_the_first_words_of_names(tmp_path, capsys):
    (tmp_path / "tars").mkdir()
    for name in ("train-00.tar", "Train-01.tar", "val_00.tar", "other.tar"):
        write_tar(tmp_path / "tars" / name, [(f"{name[:-4]}/a.jpg", JPEG)])
    assert len(keys(rows_of(tmp_path / "tars"))) == 4
    assert "tars of several splits (train, val), all used; --split chooses one" in capsys.readouterr().err
    assert keys(rows_of(tmp_path / "tars", split="train")) == ["Train-01/a", "train-00/a"]
    assert "2 tars of split train, of 4" in capsys.readouterr().err
    with pytest.raises(SourceError, match=r"no tar has a name that begins with test; such as Train-01\.tar"):
        rows_of(tmp_path / "tars", split="test")
