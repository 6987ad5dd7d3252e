"""Embeddings of image files in Parquet: order, row groups, reasons for missing embeddings, landmarks."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import benchmarks.engine.parquet_writer
from benchmarks.engine.cache import EmbeddingCache
from benchmarks.engine.parquet_writer import embed_images
from benchmarks.engine.runner import Engine
from benchmarks.errors import ProtocolError, SearchError
from benchmarks.search.table import EmbeddingTable
from pipeline.prepare import Request, prepare
from pipeline.sources.folders import find_images
from pipeline.sources.templates import crop_template
from pipeline.spec import Preprocessing
from pipeline.tables.landmark_table import HEADER, LandmarkError
from tests.benchmarks.engine.tables import faces, rows
from tests.benchmarks.runs import Recorder
from tests.shard_sets import flip_bit


def table(path, names, points):
    rows = [
        f'"{name}",' + ",".join(str(value) for value in row.ravel()) for name, row in zip(names, points, strict=True)
    ]
    path.write_text("\n".join([",".join(HEADER), *rows]) + "\n")
    return path


def expected(path, **how):
    request = Request(path=path, **how)
    with open(path, "rb") as stream:
        (seen,) = prepare(stream.read(), [request], Preprocessing())
    return Recorder()(seen[None])[0]


@pytest.mark.parametrize("down", [None, 8])
def test_rows_are_in_order_with_unit_vectors_and_norms(tmp_path, painted, down):
    paths, _ = faces(tmp_path / "in", painted, [f"{number}.png" for number in range(7)])
    out = tmp_path / "sub" / "x.parquet"
    assert embed_images(Engine(embed=Recorder(), batch_size=3), paths, out, down=down, metadata={"digest": "d"}) == 7
    found = rows(out)
    assert [row["path"] for row in found] == paths
    assert {(row["status"], row["error_message"]) for row in found} == {("ok", None)}
    for path, row in zip(paths, found, strict=True):
        vector = np.array(row["embedding"], np.float32)
        np.testing.assert_allclose(np.linalg.norm(vector), 1, atol=1e-6)
        np.testing.assert_allclose(vector * row["norm"], expected(path, down=down), rtol=1e-5, atol=1e-4)
    assert pq.read_schema(out).metadata[b"digest"] == b"d"
    assert len(pd.read_parquet(out)["embedding"][3]) == len(vector)
    assert [entry.name for entry in out.parent.iterdir()] == ["x.parquet"]


def test_a_flipped_bit_among_the_vectors_is_noticed_or_changes_nothing(tmp_path, painted):
    paths, _ = faces(tmp_path / "in", painted, ["1.png", "2.png"])
    out = tmp_path / "x.parquet"
    embed_images(Engine(embed=Recorder()), paths, out, metadata={"digest": "d"})

    def read():
        with EmbeddingTable(out) as opened:
            (block,) = opened.blocks()
        return block.vectors.tobytes()

    column = pq.read_metadata(out).row_group(0).column(1)
    assert column.path_in_schema == "embedding.list.element"
    pages = range(column.data_page_offset, column.data_page_offset + column.total_compressed_size, 17)
    whole, vectors, refused = out.read_bytes(), read(), 0
    for position in pages:
        flip_bit(out, position)
        try:
            assert read() == vectors
        except SearchError:
            refused += 1
        out.write_bytes(whole)
    assert refused > 0.9 * len(pages)


def test_points_for_larger_images_are_reported(tmp_path, painted, capsys):
    paths, points = faces(tmp_path, painted, ["1.png", "2.png", "3.png"])
    csv = table(tmp_path / "x.csv", ["1", "2", "3"], [3 * face for face in points])
    embed_images(Engine(embed=Recorder()), paths, tmp_path / "x.parquet", landmarks=[csv])
    told = f"x.csv: the points of 3 of 3 images tried end far outside their image ({paths[0]}: 120x150 px, points to "
    assert told in (said := capsys.readouterr().err)
    assert "probably for larger images" in said
    embed_images(
        Engine(embed=Recorder()), paths, tmp_path / "x.parquet", landmarks=[table(csv, ["1", "2", "3"], points)]
    )
    assert "probably" not in capsys.readouterr().err


def test_unusable_images_are_rows_with_a_reason(tmp_path, painted):
    paths, _ = faces(tmp_path, painted, ["a.png", "b.jpg", "c.png", "d.png"])
    (tmp_path / "a.png").unlink()
    (tmp_path / "b.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:200])
    (tmp_path / "d.png").write_bytes(b"")
    assert embed_images(Engine(embed=Recorder()), paths, tmp_path / "x.parquet") == 1
    found = rows(tmp_path / "x.parquet")
    assert [row["status"] for row in found] == ["unusable-image", "unusable-image", "ok", "unusable-image"]
    reasons = [row["error_message"] for row in found]
    assert (reasons[0], reasons[2], reasons[3]) == ("not found", None, "empty file")
    assert reasons[1].startswith("damaged JPEG (200 bytes)")
    assert (
        [row["embedding"] is None for row in found]
        == [row["norm"] is None for row in found]
        == [True, True, False, True]
    )


def test_a_table_may_have_no_embedding_at_all(tmp_path):
    assert embed_images(Engine(embed=Recorder()), [str(tmp_path / "none.png")], tmp_path / "x.parquet") == 0
    assert rows(tmp_path / "x.parquet") == [
        {
            "path": f"{tmp_path}/none.png",
            "embedding": None,
            "norm": None,
            "status": "unusable-image",
            "error_message": "not found",
        }
    ]


def test_a_zero_output_is_unusable(tmp_path, painted):
    paths, _ = faces(tmp_path, painted, ["a.png"])
    embed_images(Engine(embed=lambda batch: np.zeros((len(batch), 4), np.float32)), paths, tmp_path / "x.parquet")
    (row,) = rows(tmp_path / "x.parquet")
    assert (row["status"], row["embedding"]) == ("unusable-image", None)
    assert row["error_message"] == "the network's output is zero"


def test_row_groups_do_not_change_the_rows(tmp_path, painted, monkeypatch):
    paths, _ = faces(tmp_path / "in", painted, [f"{number}.png" for number in range(10)])
    os.unlink(paths[5])
    embed_images(Engine(embed=Recorder()), paths, tmp_path / "one.parquet")
    monkeypatch.setattr(benchmarks.engine.parquet_writer, "ROW_GROUP", 4)
    embed_images(Engine(embed=Recorder()), paths, tmp_path / "three.parquet")
    assert pq.ParquetFile(tmp_path / "one.parquet").num_row_groups == 1
    assert pq.ParquetFile(tmp_path / "three.parquet").num_row_groups == 3
    assert rows(tmp_path / "three.parquet") == rows(tmp_path / "one.parquet")


def test_cached_embeddings_give_the_same_bytes(tmp_path, painted):
    paths, _ = faces(tmp_path / "in", painted, [f"{number}.png" for number in range(5)])
    for name, embed in (("first", Recorder()), ("second", lambda images: 1 / 0)):  # is not called
        with EmbeddingCache(tmp_path / "cache") as cache:
            embed_images(Engine(embed=embed, cache=cache), paths, tmp_path / f"{name}.parquet")
    assert (tmp_path / "first.parquet").read_bytes() == (tmp_path / "second.parquet").read_bytes()


def test_a_failure_midway_leaves_no_file(tmp_path, painted, monkeypatch):
    paths, _ = faces(tmp_path / "in", painted, [f"{number}.png" for number in range(4)])
    monkeypatch.setattr(benchmarks.engine.parquet_writer, "ROW_GROUP", 2)
    batches = []

    def diverged(batch):
        batches.append(len(batch))
        return np.full((len(batch), 4), np.nan if len(batches) == 2 else 1, np.float32)

    with pytest.raises(ProtocolError, match="embeddings are not finite"):
        embed_images(Engine(embed=diverged), paths, tmp_path / "x.parquet")
    assert batches == [2, 2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["in"]


def test_landmarks_are_matched_by_the_longest_path_suffix(tmp_path, painted):
    paths, points = faces(tmp_path / "train", painted, ["n1/1.jpg", "n2/1.jpg", "n2/2.jpg"])
    wrong = np.full((5, 2), 3.0)
    csv = table(tmp_path / "x.csv", ["train/n1/1.jpg", "n2/1", "2", "1"], [*points, wrong])
    assert embed_images(Engine(embed=Recorder()), paths, tmp_path / "x.parquet", landmarks=[csv]) == 3
    for path, row, face in zip(paths, rows(tmp_path / "x.parquet"), points, strict=True):
        face = tuple(map(tuple, face.astype(np.float32).astype(float).tolist()))
        np.testing.assert_allclose(
            np.array(row["embedding"]) * row["norm"], expected(path, points=face), rtol=1e-5, atol=1e-3
        )


def test_aligned_crops_of_another_template_are_brought_to_the_networks(tmp_path, painted):
    paths, points = faces(tmp_path, painted, ["a.png", "b.png"])
    crops = []
    for path, five in zip(paths, points, strict=True):
        with open(path, "rb") as stream:
            request = Request(path=path, points=tuple(map(tuple, five.tolist())))
            (crop,) = prepare(stream.read(), [request], Preprocessing(template="arcface", size=112))
        crops.append(f"{path[:-4]}-crop.png")
        cv2.imwrite(crops[-1], crop[..., ::-1])
    template = crop_template("arcface")
    assert embed_images(Engine(embed=Recorder()), crops, tmp_path / "x.parquet", aligned=template) == 2
    for row in rows(tmp_path / "x.parquet"):
        np.testing.assert_allclose(
            np.array(row["embedding"]) * row["norm"], expected(row["path"], template=template), rtol=1e-5
        )
    assert pq.read_schema(tmp_path / "x.parquet").metadata[b"alignment"] == b"arcface"
    whole = expected(crops[0])
    assert np.abs(expected(crops[0], template=template) - whole).mean() > 5


def test_a_network_for_unaligned_images_aligns_none(tmp_path, painted):
    paths, points = faces(tmp_path, painted, ["n1/a.png"])
    engine = Engine(embed=Recorder(), spec=Preprocessing.unaligned())
    for options, flag in (
        ({"landmarks": [table(tmp_path / "t.csv", ["n1/a"], points)]}, "--landmarks"),
        ({"aligned": crop_template("seed")}, "--aligned"),
    ):
        with pytest.raises(ProtocolError) as error:
            embed_images(engine, paths, tmp_path / "x.parquet", **options)
        assert str(error.value) == (
            f"the network was trained on unaligned images only (template none): leave out {flag}"
        )


def test_missing_and_ambiguous_landmarks_are_reasons(tmp_path, painted):
    names = ["a/1.png", "b/1.png", "2.png", "3.png", "4.png", "5.png"]
    paths, points = faces(tmp_path, painted, names)
    points[4] = np.full((5, 2), np.nan)
    csv = table(tmp_path / "x.csv", ["1", "2", "2", "4", "5"], [points[0], points[2], points[3], points[4], points[5]])
    embed_images(Engine(embed=Recorder()), paths, tmp_path / "x.parquet", landmarks=[csv])
    assert [(row["status"], row["error_message"]) for row in rows(tmp_path / "x.parquet")] == [
        *[("no-landmarks", f"several images match these landmarks in {csv}")] * 2,
        ("no-landmarks", f"duplicate landmarks in {csv}"),
        ("no-landmarks", f"no landmarks in {csv}"),
        ("unusable-image", "landmarks (x.csv row 4) are not all finite numbers"),
        ("ok", None),
    ]


def test_an_unreadable_table_is_an_error(tmp_path, painted):
    paths, _ = faces(tmp_path, painted, ["1.png"])
    with pytest.raises(LandmarkError, match=r"none\.csv: No such file or directory; expected a landmark CSV"):
        embed_images(Engine(embed=Recorder()), paths, tmp_path / "x.parquet", landmarks=[tmp_path / "none.csv"])


def test_a_file_name_that_is_not_utf8_is_escaped(tmp_path, painted):
    paths, points = faces(tmp_path, painted, ["a.png"])
    name = os.fsencode(tmp_path) + b"/\xff.png"
    os.rename(paths[0], name)
    csv = table(tmp_path / "x.csv", [r"\udcff"], points)
    found = find_images([tmp_path]).paths
    assert embed_images(Engine(embed=Recorder()), found, tmp_path / "x.parquet", landmarks=[csv]) == 1
    assert rows(tmp_path / "x.parquet")[0]["path"] == rf"{tmp_path}/\xff.png"
