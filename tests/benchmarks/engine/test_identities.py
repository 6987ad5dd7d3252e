"""Identities from paths; templates against a naive mean."""

from __future__ import annotations

import os

import numpy as np
import pyarrow.parquet as pq
import pytest

import benchmarks.engine.parquet_writer
from benchmarks.engine.identities import ImageRows, Templates, identity_of, template_path
from benchmarks.engine.parquet_writer import embed_images
from benchmarks.engine.runner import Engine
from tests.benchmarks.engine.tables import faces, rows
from tests.benchmarks.runs import Recorder


@pytest.mark.parametrize(
    ("path", "folder", "prefix"),
    [
        ("a/Ann/1.jpg", "Ann", "1"),
        ("/x/mugshots/001_frontal.jpg", "mugshots", "001"),
        ("q/12_cam3_1.jpg", "q", "12"),
        ("q/\u00e4 \u4e2d/_.jpg", "\u00e4 \u4e2d", ""),
        ("q/Jose\u0301/Rene\u0301_1.jpg", "Jos\xe9", "Ren\xe9"),  # as macOS writes them
        ("q/no.ending/x", "no.ending", "x"),
        ("a/../Bob/1.jpg", "Bob", "1"),
    ],
)
def test_identities_are_folders_or_prefixes(path, folder, prefix):
    assert (identity_of(path, "folder"), identity_of(path, "prefix")) == (folder, prefix)


def test_identities_of_images_without_folder(tmp_path, monkeypatch):
    (tmp_path / "Ann").mkdir()
    monkeypatch.chdir(tmp_path / "Ann")
    assert identity_of("1.jpg", "folder") == "Ann"
    assert (template_path("x/1_2.jpg", "folder"), template_path("x/1_2.jpg", "prefix")) == ("x", "x/1")


NAMES = ["Bob/1.png", "Ann/2.png", "Ann/1.png", "Ann/10.png", "Cid/1.png", "Dan/1.png", "Dan/2.png"]


@pytest.mark.parametrize("weights", ["equal", "norm"])
@pytest.mark.parametrize("group_rows", [2, 100])
def test_a_template_is_the_mean_of_its_images(tmp_path, painted, monkeypatch, weights, group_rows):
    monkeypatch.setattr(benchmarks.engine.parquet_writer, "ROW_GROUP", group_rows)
    paths, _ = faces(tmp_path / "in", painted, NAMES)
    os.truncate(paths[3], 0)
    os.truncate(paths[4], 0)
    embed_images(Engine(embed=Recorder()), paths, tmp_path / "one.parquet")
    templates = Templates("folder", weights)
    out = tmp_path / "x.parquet"
    assert embed_images(Engine(embed=Recorder()), paths, out, rows=templates) == 5
    images = {row["path"]: row for row in rows(tmp_path / "one.parquet")}
    found = rows(out)
    assert [row["identity"] for row in found] == ["Ann", "Bob", "Cid", "Dan"]
    assert [row["path"] for row in found] == [f"{tmp_path}/in/{name}" for name in ("Ann", "Bob", "Cid", "Dan")]
    assert [row["images"] for row in found] == [2, 1, 0, 2]
    assert [row["unusable"] for row in found] == [
        [f"{paths[3]}: empty file"], [], [f"{paths[4]}: empty file"], [],
    ]  # fmt: skip
    for row in found[:2] + found[3:]:
        mine = [images[path] for path in paths if f"/{row['identity']}/" in path and images[path]["embedding"]]
        shares = [image["norm"] if weights == "norm" else 1.0 for image in mine]
        mean = np.average([image["embedding"] for image in mine], axis=0, weights=shares)
        np.testing.assert_allclose(row["embedding"], mean / np.linalg.norm(mean), atol=1e-6)
        assert row["norm"] == pytest.approx(np.linalg.norm(mean), abs=1e-6)
        assert (row["status"], row["error_message"]) == ("ok", None)
    assert (found[2]["embedding"], found[2]["norm"], found[2]["status"]) == (None, None, "unusable-image")
    assert found[2]["error_message"] == f"no usable image, such as {paths[4]}: empty file"
    assert (templates.count, templates.usable) == (4, 3)
    metadata = pq.read_schema(out).metadata
    assert (metadata[b"group"], metadata[b"weights"]) == (b"folder", weights.encode())
    assert b"group" not in pq.read_schema(tmp_path / "one.parquet").metadata


def test_groups_of_images_do_not_change_the_templates(tmp_path, painted, monkeypatch):
    paths, _ = faces(tmp_path / "in", painted, [f"Ann/{number}.png" for number in range(5)] + ["Bob/1.png"])
    tables = []
    for size in (1, 2, 3, 100):
        monkeypatch.setattr(benchmarks.engine.parquet_writer, "ROW_GROUP", size)
        embed_images(Engine(embed=Recorder()), paths, tmp_path / "x.parquet", rows=Templates("folder"))
        tables.append(pq.read_table(tmp_path / "x.parquet"))
        assert pq.ParquetFile(tmp_path / "x.parquet").metadata.num_rows == 2
    assert all(table.equals(tables[0]) for table in tables)


def test_opposite_embeddings_have_no_mean(tmp_path, painted):
    paths, _ = faces(tmp_path / "in", painted, ["Ann/1.png", "Ann/2.png"])
    signs = iter([1.0, -1.0])
    embed_images(
        Engine(embed=lambda batch: np.full((1, 4), next(signs), np.float32), batch_size=1),
        paths,
        tmp_path / "x.parquet",
        rows=Templates("folder"),
    )
    (row,) = rows(tmp_path / "x.parquet")
    assert (row["status"], row["embedding"], row["images"]) == ("unusable-image", None, 2)
    assert row["error_message"] == "the mean of its images is zero"


def test_one_name_in_several_folders_is_one_person_and_reported(tmp_path, painted, capsys):
    paths, _ = faces(tmp_path / "in", painted, ["old/Ann/1.png", "new/Ann/1.png", "new/Bob/1.png"])
    templates = Templates("folder")
    embed_images(Engine(embed=Recorder()), paths, tmp_path / "x.parquet", rows=templates)
    assert [(row["identity"], row["images"]) for row in rows(tmp_path / "x.parquet")] == [("Ann", 2), ("Bob", 1)]
    message = (
        "1 identity in several folders, taken for one person each, such as Ann:"
        f" {tmp_path}/in/new/Ann, {tmp_path}/in/old/Ann\n"
    )
    assert message in capsys.readouterr().err
    embed_images(Engine(embed=Recorder()), paths, tmp_path / "x.parquet", rows=ImageRows("folder"))
    assert message in capsys.readouterr().err


def test_identities_of_single_images(tmp_path, painted):
    paths, _ = faces(tmp_path / "in", painted, ["m/001_a.png", "m/002_a.png", "m/x.png"])
    os.truncate(paths[1], 0)
    embed_images(Engine(embed=Recorder()), paths, tmp_path / "x.parquet", rows=ImageRows("prefix"))
    found = rows(tmp_path / "x.parquet")
    assert [(row["identity"], row["status"]) for row in found] == [
        ("001", "ok"), ("002", "unusable-image"), ("x", "ok"),
    ]  # fmt: skip
    embed_images(Engine(embed=Recorder()), paths, tmp_path / "y.parquet")
    assert "identity" not in rows(tmp_path / "y.parquet")[0]
