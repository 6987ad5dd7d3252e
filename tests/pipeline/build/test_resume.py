"""Interrupted builds resume; processes and repeated builds give the same bytes."""

from __future__ import annotations

import errno
import os

import pytest

from pipeline.build import build
from shards.errors import LockedError
from shards.locks import locked
from shards.schema import Manifest
from shards.verify import verify
from tests.pipeline.build.made import contents, image
from tests.shard_sets import build_options


def test_processes_build_the_same_bytes(vggface2, tmp_path):
    build(build_options(vggface2, tmp_path / "serial"))
    build(build_options(vggface2, tmp_path / "pool", executor="process", workers=2))
    assert contents(tmp_path / "pool") == contents(tmp_path / "serial")


def test_resuming_keeps_committed_shards(vggface2, tmp_path):
    out = tmp_path / "out"
    build(build_options(vggface2, out))
    (out / "manifest.json").unlink()
    (out / "shard-000001.done.json").unlink()
    (out / "shard-000002.tar").write_bytes(b"truncated")
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*.tar")}
    build(build_options(vggface2, out))
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*.tar")}
    assert sorted(name for name in before if before[name] != after[name]) == ["shard-000001.tar", "shard-000002.tar"]
    assert list(verify(out, full=True)) == []


@pytest.mark.parametrize("name", ["index.parquet", "manifest.json"])
@pytest.mark.parametrize("card", [None, "a card of the user's"])
def test_a_lost_index_or_manifest_is_written_again(vggface2, tmp_path, name, card):
    out = tmp_path / "out"
    build(build_options(vggface2, out))
    if card:
        (out / "README.md").write_text(card)
    before = contents(out)
    (out / name).unlink()
    build(build_options(vggface2, out))
    assert contents(out) == before


def test_a_complete_set_is_not_changed(vggface2, tmp_path, capsys):
    build(build_options(vggface2, tmp_path / "out"))
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    build(build_options(vggface2, tmp_path / "out"))
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    assert "already complete, nothing to do: 45 images" in capsys.readouterr().err


def test_retry_failed_builds_failed_shards_again(vggface2, tmp_path):
    path = image(vggface2, "n000001/0001_01")
    data = path.read_bytes()
    path.unlink()
    out = tmp_path / "out"
    build(build_options(vggface2, out))
    path.write_bytes(data)
    build(build_options(vggface2, out))
    assert Manifest.read(out).statuses == {"ok": 44, "missing-file": 1}
    build(build_options(vggface2, out, retry_failed=True))
    assert Manifest.read(out).statuses == {"ok": 45}
    build(build_options(vggface2, tmp_path / "whole"))
    assert contents(out) == contents(tmp_path / "whole")


def test_retry_failed_sees_a_file_added_by_this_process(vggface2, tmp_path):
    path, out = image(vggface2, "n000001/0001_01"), tmp_path / "out"
    data = path.read_bytes()
    path.unlink()
    build(build_options(vggface2, out))
    assert Manifest.read(out).statuses == {"ok": 44, "missing-file": 1}
    path.with_suffix(".JPEG").write_bytes(data)
    build(build_options(vggface2, out, retry_failed=True))
    assert Manifest.read(out).statuses == {"ok": 45}


def test_errors_of_committed_shards_are_not_mistaken_for_their_absence(vggface2, tmp_path, monkeypatch):
    build(build_options(vggface2, tmp_path / "out"))
    before = contents(tmp_path / "out")

    def fail(root, shard):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(root))

    monkeypatch.setattr("shards.writer.read_done", fail)
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        build(build_options(vggface2, tmp_path / "out"))
    assert contents(tmp_path / "out") == before


def test_files_of_the_user_with_names_like_temporary_ones_are_kept(vggface2, tmp_path):
    precious, out = tmp_path / "precious", tmp_path / "out"
    precious.write_text("precious")
    build(build_options(vggface2, out))
    (out / "manifest.json").unlink()
    for name in ("manifest.json.partial", "shard-000001.tar.partial"):
        (out / name).symlink_to(precious)
    (out / "index.parquet.partial").mkdir()
    build(build_options(vggface2, out))
    assert precious.read_text() == "precious"
    assert len(list(out.glob("*.partial"))) == 3
    assert not any(path.is_symlink() for path in out.iterdir() if path.suffix != ".partial")


def test_pipes_in_place_of_finished_files_are_built_again(vggface2, tmp_path):
    out = tmp_path / "out"
    build(build_options(vggface2, out))
    before = contents(out)
    for name in ("index.parquet", "shard-000000.tar", "shard-000001.done.json", "shard-000002.parquet"):
        (out / name).unlink()
        os.mkfifo(out / name)
        build(build_options(vggface2, out))
        assert contents(out) == before


def test_two_builds_cannot_share_a_folder(vggface2, tmp_path):
    (tmp_path / "out").mkdir()
    with (
        locked(tmp_path / "out", "testing"),
        pytest.raises(LockedError, match="another process is building shards here"),
    ):
        build(build_options(vggface2, tmp_path / "out"))
