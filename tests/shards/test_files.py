"""Files and folders appear complete or not at all; locks; records notice damage."""

from __future__ import annotations

import os

import pytest

from shards.errors import LockedError, ShardError
from shards.files import locked, read_record, whole_file, whole_folder, write_record


def test_a_file_appears_complete_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(UnicodeEncodeError), whole_file(path) as temporary:
        temporary.write_text("half \ud800")
    assert list(tmp_path.iterdir()) == []
    with whole_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_record_notices_any_flipped_byte(tmp_path):
    path = tmp_path / "record.json"
    write_record(path, {"count": 3, "name": "x"})
    assert read_record(path) == {"count": 3, "name": "x"}
    good = path.read_bytes()
    refused = 0
    for position in range(len(good)):
        for flip in (1, 4):
            path.write_bytes(good[:position] + bytes([good[position] ^ flip]) + good[position + 1 :])
            try:
                assert read_record(path) == {"count": 3, "name": "x"}  # white space between fields may change
            except ShardError:
                refused += 1
    assert refused > len(good)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_appears_complete_or_not_at_all(tmp_path):
    folder = tmp_path / "export"

    def write(text, error=None):
        with whole_folder(folder) as temporary:
            (temporary / "inner").mkdir()
            (temporary / "inner" / "file").write_text(text)
            if error:
                raise error

    with pytest.raises(KeyboardInterrupt):
        write("half", KeyboardInterrupt())
    assert list(tmp_path.iterdir()) == []
    write("first")
    assert contents(tmp_path) == {"export/inner/file": "first"}
    with pytest.raises(OSError, match="disk full"):
        write("half", OSError("disk full"))
    assert contents(tmp_path) == {"export/inner/file": "first"}
    write("second")
    assert contents(tmp_path) == {"export/inner/file": "second"}


def test_a_folder_whose_replacement_is_interrupted_is_restored(tmp_path, monkeypatch):
    """A folder is replaced in two renames; the second one fails, or never comes because the process is killed."""
    folder = tmp_path / "export"
    with whole_folder(folder) as temporary:
        (temporary / "file").write_text("first")
    replace, calls = os.replace, []

    def interrupted(*names):
        calls.append(names)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(*names)

    def rewrite():
        with whole_folder(folder) as temporary:
            (temporary / "file").write_text("second")

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rewrite()
    assert len(calls) == 3
    assert contents(tmp_path) == {"export/file": "first"}
    monkeypatch.undo()
    workspace = tmp_path / "export.partial"
    workspace.mkdir()
    folder.rename(workspace / "old")
    (workspace / "new").mkdir()
    with pytest.raises(ZeroDivisionError), whole_folder(folder):
        raise ZeroDivisionError
    assert contents(tmp_path) == {"export/file": "first"}


def test_a_locked_folder_is_refused_until_it_is_released(tmp_path):
    with locked(tmp_path, "training"):
        with pytest.raises(LockedError) as error, locked(tmp_path, "training"):
            pass
        assert str(error.value) == (
            f"{tmp_path}: another process is training here; wait for it to end, or choose another --out"
        )
    with locked(tmp_path, "training"):
        pass


def test_an_error_inside_the_lock_is_raised_unchanged(tmp_path):
    with pytest.raises(BlockingIOError, match="of a pipe"), locked(tmp_path, "training"):
        raise BlockingIOError("of a pipe")
    with locked(tmp_path, "training"):  # and the lock is released
        pass
