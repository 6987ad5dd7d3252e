"""Exclusion lists: comments, encodings, pipes."""

from __future__ import annotations

import gzip
import os
import threading
from collections import Counter

import pytest

from pipeline.build import build
from pipeline.build.exclusions import read_exclusions
from pipeline.tables.landmark_table import LandmarkError
from tests.pipeline.build.made import CSV, contents, csv_lines, write_csv
from tests.processes import PATIENCE_S
from tests.shard_sets import build_options, rows_of


def test_exclusion_and_min_images(vggface2, tmp_path, capsys):
    exclude = tmp_path / "exclude.txt"
    exclude.write_text('\ufeff# people of the test sets\ntrain/n000001\ntrain/n000002/0001_01.jpg\n"n999999"\n')
    for number in (2, 3, 4, 5):
        lines = [line for line in csv_lines(vggface2) if f"n000009/{number:04d}" not in line]
        write_csv(vggface2, lines)
    build(build_options(vggface2, tmp_path / "out", exclude=exclude, min_images=2))
    rows = rows_of(tmp_path / "out")
    assert Counter(row["status"] for row in rows) == {"ok": 34, "excluded": 6, "too-few-images": 1}
    assert {row["label"] for row in rows if row["identity"] in ("n000001", "n000009")} == {-1}
    assert {row["identity"]: row["label"] for row in rows if row["status"] == "ok"} == {
        f"n{person:06d}": person - 2 for person in range(2, 9)
    }
    assert "exclude.txt: removed 6 images; 1 entry without a match (n999999)" in capsys.readouterr().err


def test_comments_and_paths_in_an_exclusion_list(vggface2, tmp_path, capsys):
    exclude = tmp_path / "exclude.txt"
    exclude.write_text(
        "n000001/   # in LFW, too\r\n./n000002/\r\n  # all of them\r\n\r\n"
        '"n000003" # and this\r\n'
        f"{vggface2}/train/n000004/0001_01.jpg\r\n#n000005\r\nn000006#\r\n"
    )
    build(build_options(vggface2, tmp_path / "out", exclude=exclude))
    found = {row["key"] for row in rows_of(tmp_path / "out") if row["status"] == "excluded"}
    assert {key.split("/")[0] for key in found} == {"n000001", "n000002", "n000003", "n000004"}
    assert len(found) == 16
    assert "removed 16 images; 1 entry without a match (n000006#)" in capsys.readouterr().err


def test_tables_and_lists_from_pipes_build_the_same_set(vggface2, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.tables.streams.PIPE_WAIT_S", PATIENCE_S)
    exclude, pipes = tmp_path / "exclude.txt", (tmp_path / "table", tmp_path / "list")
    exclude.write_text("n000001\n")
    build(build_options(vggface2, tmp_path / "files", exclude=exclude))
    for pipe in pipes:
        os.mkfifo(pipe)
    files = ((vggface2 / CSV).read_bytes(), exclude.read_bytes())
    writers = [threading.Thread(target=pipe.write_bytes, args=(data,)) for pipe, data in zip(pipes, files, strict=True)]
    for writer in writers:
        writer.start()
    build(build_options(vggface2, tmp_path / "pipes", landmarks=(pipes[0],), exclude=pipes[1]))
    for writer in writers:
        writer.join()
    assert contents(tmp_path / "pipes") == contents(tmp_path / "files")


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_an_exclusion_list_in_any_unicode_encoding_is_read(tmp_path, codec):
    path = tmp_path / "exclude.txt"
    path.write_bytes("# people\r\nRen\u00e9e\rn2/1.jpg # blurred\r\n\r\nn3".encode(codec))
    assert read_exclusions(path).entries == ["Ren\u00e9e", "n2/1.jpg", "n3"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (gzip.compress(b"n1\n", mtime=0), "packed by gzip; unpack it first"),
        (b"n1\nn\xe9\n", "line 2: not UTF-8 text; save it as UTF-8"),
    ],
)
def test_an_exclusion_list_that_is_no_text_is_refused_with_the_remedy(tmp_path, data, reason):
    (tmp_path / "exclude.txt").write_bytes(data)
    with pytest.raises(LandmarkError) as error:
        read_exclusions(tmp_path / "exclude.txt")
    assert str(error.value).startswith(f"{tmp_path / 'exclude.txt'}: {reason}")


def test_an_exclusion_list_that_is_too_long_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.build.exclusions.MAX_BYTES", 4)
    (tmp_path / "exclude.txt").write_text("n1\nn")
    assert read_exclusions(tmp_path / "exclude.txt").entries == ["n1", "n"]
    (tmp_path / "exclude.txt").write_text("n1\nn2")
    with pytest.raises(LandmarkError, match=r"exclude.txt: more than 4 bytes; expected one identity"):
        read_exclusions(tmp_path / "exclude.txt")


def test_a_pipe_as_exclusion_list_without_a_writer_is_refused(vggface2, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.tables.streams.PIPE_WAIT_S", 0.05)
    os.mkfifo(tmp_path / "list")
    with pytest.raises(LandmarkError, match="list: a pipe that nobody writes to; expected one identity"):
        build(build_options(vggface2, tmp_path / "out", exclude=tmp_path / "list"))


def test_an_absent_exclusion_list_is_reported(vggface2, tmp_path):
    with pytest.raises(LandmarkError, match=r"none\.txt.*expected one identity or identity/image a line"):
        build(build_options(vggface2, tmp_path / "out", exclude=tmp_path / "none.txt"))
    assert not (tmp_path / "out").exists()
