"""Hugging Face image folders."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sources.huggingface import HuggingFace
from pipeline.sources.source import SourceError
from pipeline.tables.landmark_table import POINT_NAMES
from tests.pipeline.sources.archives import as_csv, face_table, parquet, stored, written


@pytest.fixture
def image_folder(vggface2, tmp_path):
    """An image folder with splits; images have numbers for names."""
    root = tmp_path / "hf"
    (root / "train").mkdir(parents=True)
    (root / "test").mkdir()
    records = []
    for number, (name, points) in enumerate(face_table(vggface2).items()):
        shutil.copy(vggface2 / "train" / name, root / "train" / f"{number}.jpg")
        records.append({"file_name": f"{number}.jpg", "label": int(name[6]), "landmarks": points})
    shutil.copy(root / "train" / "0.jpg", root / "test")
    return root, records


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_an_image_folder_with_metadata(image_folder, vggface2, tmp_path, form, capsys):
    root, records = image_folder
    path = root / "train" / f"metadata.{form}"
    if form == "csv":
        rows = [(record["file_name"], record["label"], *record["landmarks"]) for record in records]
        written(path, as_csv(["file_name", "label", *POINT_NAMES], rows))
    elif form == "jsonl":
        written(path, "".join(json.dumps(record) + "\n" for record in records))
    else:
        pq.write_table(pa.Table.from_pylist(records), path)
    found = stored("huggingface", root, tmp_path / "set")
    expected = stored("vggface2", vggface2, tmp_path / "reference")
    assert len(found) == 45
    assert sorted(row["xxh3"] for row in found) == sorted(row["xxh3"] for row in expected)
    assert {row["identity"] for row in found} == set("123456789")
    assert f"{root}: split train is used; left out: test (--split chooses one)" in capsys.readouterr().err
    theirs = datasets.load_dataset("imagefolder", data_dir=str(root), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(theirs["label"]) == sorted(int(row["identity"]) for row in found)


def test_an_image_folder_of_labels(vggface2, tmp_path, capsys):
    shutil.copytree(vggface2 / "train" / "n000001", vggface2 / "test" / "n000099")
    found = stored("huggingface", vggface2, tmp_path / "set", template="none")
    assert len(found) == 45
    expected = stored("folder", vggface2 / "train", tmp_path / "reference", template="none")
    assert [(row["key"], row["xxh3"]) for row in found] == [(row["key"], row["xxh3"]) for row in expected]
    others = stored("huggingface", vggface2, tmp_path / "test", template="none", split="test")
    assert {row["identity"] for row in others} == {"n000099"}
    with pytest.raises(SourceError, match="no folder val; it has test, train"):
        stored("huggingface", vggface2, tmp_path / "none", template="none", split="val")


def test_landmark_tables_may_name_images_of_a_split_by_their_folder(image_folder, tmp_path):
    root, records = image_folder
    written(root / "train" / "metadata.jsonl", "".join(json.dumps(record) + "\n" for record in records))
    rows = [(f"train/{record['file_name']}", *record["landmarks"]) for record in records]
    table = written(tmp_path / "points.csv", as_csv(["NAME_ID", *POINT_NAMES], rows))
    given = stored("huggingface", root, tmp_path / "given", landmarks=table)
    stated = stored("huggingface", root, tmp_path / "stated")
    assert len(given) == 45
    assert [(row["key"], row["xxh3"]) for row in given] == [(row["key"], row["xxh3"]) for row in stated]


def test_image_folders_that_are_unclear_are_refused(tmp_path):
    def rows(**options):
        return HuggingFace().rows(tmp_path, [], aligning=False, **options)

    for name in ("validation", "test"):
        (tmp_path / name).mkdir()
    with pytest.raises(SourceError, match=r"several splits \(test, validation\); choose one with --split"):
        rows()
    with pytest.raises(SourceError, match="no images found"):
        rows(split="test")
    (tmp_path / "test" / "data").mkdir()
    parquet(tmp_path / "test" / "data" / "test-0.parquet", label=[1])
    with pytest.raises(
        SourceError, match=r"test: Parquet files \(test-0\.parquet\) in place of images; save the images as"
    ):
        rows(split="test")
    for name in ("metadata.csv", "metadata.jsonl"):
        written(tmp_path / name, "file_name,label\n0.jpg,1\n")
    with pytest.raises(SourceError, match=r"metadata.csv and metadata.jsonl; keep one of them"):
        rows()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("none")])
def test_metadata_that_is_no_file_is_not_taken_for_a_folder_without(tmp_path, make):
    (tmp_path / "anna").mkdir()
    written(tmp_path / "anna" / "1.jpg", "")
    make(tmp_path / "metadata.csv")
    with pytest.raises(SourceError, match=r"metadata.csv: a pipe, a folder or a link to nothing; replace it by a file"):
        HuggingFace().rows(tmp_path, [], aligning=False)


def test_metadata_in_a_deeper_folder_is_refused(tmp_path):
    """``datasets`` takes the labels from it; the folder would be taken for a person."""
    (tmp_path / "train" / "batch1").mkdir(parents=True)
    written(tmp_path / "train" / "batch1" / "1.jpg", "")
    written(tmp_path / "train" / "batch1" / "metadata.csv", "file_name,label\n1.jpg,anna\n")
    with pytest.raises(SourceError, match=r"a metadata file in a folder below it \(batch1/metadata.csv\)"):
        HuggingFace().rows(tmp_path, [], aligning=False)
