"""Reading tables of embeddings: any list type, any row groups; what is invalid is one line."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import benchmarks.search.table
from benchmarks.errors import SearchError
from benchmarks.search.table import EmbeddingTable
from tests.benchmarks.search.vectors import METADATA, table_of, units


def read(path):
    with EmbeddingTable(path) as table:
        return list(table.blocks())


def refusal(path):
    with pytest.raises(SearchError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)
    return str(error.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("group_rows", [3, 1000])
@pytest.mark.parametrize("block_bytes", [4 * 8 * 4, 1 << 20])
def test_rows_come_in_order_whatever_the_blocks(write, monkeypatch, group_rows, block_bytes):
    monkeypatch.setattr(benchmarks.search.table, "BLOCK_BYTES", block_bytes)
    vectors = units(50, 8)
    path = write("x.parquet", vectors, bad={0, 1, 2, 7, 49}, group_rows=group_rows)
    with EmbeddingTable(path) as table:
        assert (table.rows, table.length, table.has_identities) == (50, 8, False)
        assert table.metadata["digest"] == "00ff"
        blocks = list(table.blocks())
        kept = np.setdiff1d(np.arange(50), [0, 1, 2, 7, 49])
        np.testing.assert_array_equal(np.concatenate([block.rows for block in blocks]), kept)
        np.testing.assert_array_equal(np.concatenate([block.vectors for block in blocks]), vectors[kept])
        np.testing.assert_array_equal(table.vectors_of(kept[[0, 3, -1]]), vectors[kept[[0, 3, -1]]])
        texts = table.texts(["path", "identity", "error_message"], np.array([0, 4, 49]))
    assert texts.to_pylist() == [
        {"path": "g/0.jpg", "identity": None, "error_message": "empty file"},
        {"path": "g/4.jpg", "identity": None, "error_message": None},
        {"path": "g/49.jpg", "identity": None, "error_message": "empty file"},
    ]
    assert len(blocks) == (1 if block_bytes == 1 << 20 else 13)


@pytest.mark.parametrize("kind", ["large_list", "fixed", "float64", "float16", "large_string", "category"])
def test_other_tools_may_rewrite_the_columns(tmp_path, kind):
    vectors = units(6, 8)
    table = table_of(vectors, identities="aabbcc")
    casts = {
        "large_list": ("embedding", pa.large_list(pa.float32())),
        "fixed": ("embedding", pa.list_(pa.float32(), 8)),
        "float64": ("embedding", pa.list_(pa.float64())),
        "float16": ("embedding", pa.list_(pa.float16())),
        "large_string": ("path", pa.large_string()),
        "category": ("identity", pa.dictionary(pa.int32(), pa.string())),
    }
    name, type_ = casts[kind]
    place = table.schema.get_field_index(name)
    table = table.set_column(place, name, table[name].cast(type_))
    pq.write_table(table, tmp_path / "x.parquet")
    (block,) = read(tmp_path / "x.parquet")
    np.testing.assert_allclose(block.vectors, vectors, atol=1e-3 if kind == "float16" else 0)
    with EmbeddingTable(tmp_path / "x.parquet") as opened:
        assert opened.texts(["identity"], np.array([1, 5]))["identity"].to_pylist() == ["a", "c"]


def test_a_table_that_pandas_saved_does_not_name_its_network(write, tmp_path):
    frame = pd.read_parquet(write("x.parquet", units(3, 8)))
    frame.to_parquet(tmp_path / "y.parquet")
    assert refusal(tmp_path / "y.parquet").startswith("does not say which network embedded it; ")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"path,embedding\na.jpg,1\n", "cannot be read (Parquet magic bytes not found"),
        (b"", "cannot be read (Parquet file size is 0 bytes"),
        (b"PAR1" + bytes(50) + b"PAR1", "cannot be read ("),
    ],
    ids=["csv", "empty", "damaged"],
)
def test_other_files_are_refused(tmp_path, content, reason):
    (tmp_path / "x.parquet").write_bytes(content)
    found = refusal(tmp_path / "x.parquet")
    assert found.startswith(reason)
    assert found.endswith("; expected a file written by embed")


def test_a_missing_file_a_folder_and_a_cut_file_are_refused(tmp_path, write):
    assert refusal(tmp_path / "none").startswith("cannot be read (No such file or directory)")
    assert refusal(tmp_path).startswith("cannot be read (not a regular file)")
    path = write("x.parquet", units(100, 64))
    data = bytearray(path.read_bytes())
    data[200:1200] = bytes(1000)
    path.write_bytes(data)
    assert refusal(path).startswith("cannot be read (")


def _replaced(name, values, type_=None):
    table = table_of(units(4, 8))
    place = table.schema.get_field_index(name)
    return table.set_column(place, name, pa.array(values, type_))


_UNIT = [1.0, *[0.0] * 7]
_EDITED = {
    "numbers as paths": (_replaced("path", [1, 2, 3, 4]), "column path holds int64, expected text"),
    "a missing path": (_replaced("path", ["a", None, "c", "d"]), "row 1 has no path"),
    "numbers as embeddings": (_replaced("embedding", [1.0] * 4), "column embedding holds double, expected lists of float32"),
    "whole numbers": (
        _replaced("embedding", [[1], [1], [1], [1]]),
        "column embedding holds list<element: int64>, expected lists of float32",
    ),
    "lengths differ": (
        _replaced("embedding", [_UNIT, _UNIT, [1.0], _UNIT]),
        "row 2 (g/2.jpg) has an embedding of 1 numbers, others of 8",
    ),
    "empty": (_replaced("embedding", [[], [], [], []], pa.list_(pa.float32())), "row 0 (g/0.jpg) has an embedding of 0 numbers"),
    "not a number": (_replaced("embedding", [_UNIT, [np.nan] * 8, _UNIT, _UNIT]), "row 1 (g/1.jpg): the embedding is not finite"),
    "infinite": (_replaced("embedding", [_UNIT, _UNIT, _UNIT, [np.inf, *[0.0] * 7]]), "row 3 (g/3.jpg): the embedding is not finite"),
    "null within": (_replaced("embedding", [_UNIT, _UNIT, [None, *[0.3] * 7], _UNIT]), "row 2 (g/2.jpg) has an embedding with missing numbers"),
    "not normalised": (_replaced("embedding", [_UNIT, [3.0] * 8, _UNIT, _UNIT]), "row 1 (g/1.jpg): the embedding has length 8.49, expected 1"),
    "no embedding at all": (_replaced("embedding", [None] * 4, pa.list_(pa.float32())), "no row has an embedding; see its columns status"),
    "no rows": (table_of(units(4, 8)).slice(0, 0), "has no rows"),
    "no column": (table_of(units(4, 8)).drop_columns(["status"]), "no column status"),
    "two columns of one name": (
        table_of(units(4, 8)).append_column("path", pa.array(list("abcd"))),
        "column path holds string and string, expected text",
    ),
    "no metadata": (table_of(units(4, 8), metadata=None), "does not say which network embedded it"),
}  # fmt: skip


@pytest.mark.parametrize("name", _EDITED)
def test_edited_tables_are_refused_by_row_or_column(tmp_path, name):
    table, reason = _EDITED[name]
    table = table.replace_schema_metadata(METADATA if name != "no metadata" else None)
    pq.write_table(table, tmp_path / "x.parquet")
    assert refusal(tmp_path / "x.parquet").startswith(reason)


def test_long_lists_are_refused_by_the_first_row(tmp_path, monkeypatch):
    lists = _replaced("embedding", [[0.0] * 70_000] * 4, pa.list_(pa.float32()))
    pq.write_table(lists.replace_schema_metadata(METADATA), tmp_path / "x.parquet")
    sizes = []
    monkeypatch.setattr(
        benchmarks.search.table.pc, "list_value_length", lambda column: sizes.append(len(column)) or pa.array([70_000])
    )
    assert refusal(tmp_path / "x.parquet").startswith("row 0 (g/0.jpg) has an embedding of 70,000 numbers")
    assert sizes == [1]


def test_damaged_files_are_read_or_refused(write):
    path = write("x.parquet", units(60, 8), group_rows=20)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refusals = []
    for _ in range(200):
        data = bytearray(whole)
        data[rng.integers(0, len(data))] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            read(path)
        except SearchError as error:
            refusals.append(str(error))
    assert 50 < len(refusals) < 190
    assert all(line.startswith(f"{path}: ") and line.isprintable() for line in refusals)


def test_text_that_is_not_utf8_is_refused(tmp_path):
    broken = pa.Array.from_buffers(
        pa.string(), 4, [None, pa.py_buffer(np.arange(5, dtype=np.int32)), pa.py_buffer(b"a\xffcd")]
    )
    table = table_of(units(4, 8))
    pq.write_table(table.set_column(0, "path", broken), tmp_path / "x.parquet")
    assert refusal(tmp_path / "x.parquet").startswith("cannot be read (")


def test_a_row_whose_status_is_not_ok_has_no_embedding(tmp_path):
    table = _replaced("status", ["ok", "unusable-image", "ok", "ok"]).replace_schema_metadata(METADATA)
    pq.write_table(table, tmp_path / "x.parquet")
    (block,) = read(tmp_path / "x.parquet")
    assert block.rows.tolist() == [0, 2, 3]
