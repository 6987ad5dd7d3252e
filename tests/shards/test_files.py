"""Files and folders appear complete or not at all; locks; records notice damage."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

import pytest

from shards.errors import LockedError, ShardError
from shards.files import (
    read_record,
    remove_temporaries,
    temporary_path,
    whole_file,
    whole_folder,
    write_bytes,
    write_record,
)
from shards.locks import locked


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


def test_an_error_in_a_folder_names_the_final_file(tmp_path):
    with pytest.raises(FileNotFoundError) as caught, whole_folder(tmp_path / "export") as temporary:
        (temporary / "inner" / "file").write_text("x")
    assert caught.value.filename == str(tmp_path / "export" / "inner" / "file")


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
    workspace = temporary_path(folder)  # as a killed process leaves it
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


@pytest.mark.parametrize("write", [write_bytes, lambda path, data: write_record(path, {"data": 1})])
def test_files_of_the_user_under_temporary_names_are_not_touched(write, tmp_path, monkeypatch):
    precious, path = tmp_path / "precious", tmp_path / "faces.parquet"
    precious.write_text("precious")
    (tmp_path / "faces.parquet.partial").symlink_to(precious)
    write(path, b"new")
    assert not path.is_symlink()
    assert os.readlink(tmp_path / "faces.parquet.partial") == str(precious)
    monkeypatch.setattr("secrets.token_hex", lambda count: "0" * 2 * count)
    temporary = temporary_path(path)
    temporary.symlink_to(precious)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        write(path, b"newer")
    assert (path.read_bytes(), precious.read_text()) == (before, "precious")


def test_a_folder_of_the_user_beside_an_export_is_kept(tmp_path):
    (tmp_path / "export.partial" / "old").mkdir(parents=True)
    (tmp_path / "export.partial" / "thesis.tex").write_text("years of work")
    with whole_folder(tmp_path / "export") as temporary:
        (temporary / "file").write_text("new")
    assert contents(tmp_path) == {"export/file": "new", "export.partial/thesis.tex": "years of work"}
    assert (tmp_path / "export.partial" / "old").is_dir()


def test_a_file_gets_the_rights_that_the_user_wants(tmp_path):
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_temporary_files_of_killed_processes_are_removed_and_no_others(tmp_path):
    killed = [temporary_path(tmp_path / name) for name in ("a", "b", "folder")]
    killed[0].write_bytes(b"half")
    killed[1].write_bytes(b"half")
    (killed[2] / "inner").mkdir(parents=True)
    link = temporary_path(tmp_path / "link")
    link.symlink_to(killed[0])
    users = [tmp_path / name for name in ("a", "a.partial", "a.lrfr-notes.partial", "shard-000000.tar.partial")]
    for path in users:
        path.write_bytes(b"precious")
    with whole_file(tmp_path / "running") as running:
        remove_temporaries(tmp_path, "a")
        assert sorted(tmp_path.iterdir()) == sorted([*users, *killed[1:], link, running])
        remove_temporaries(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([*users, link, running])
    remove_temporaries(tmp_path / "none")


@pytest.mark.parametrize("name", ["x" * 255, "\u00e9" * 127, "x" + "\u00e9" * 127], ids=["ascii", "even", "odd"])
def test_a_name_may_be_as_long_as_the_file_system_takes_it(name, tmp_path):
    """The temporary name is longer by a suffix."""
    killed = temporary_path(tmp_path / name)
    killed.write_bytes(b"half")
    assert len(os.fsencode(killed.name)) <= 255
    killed.name.encode()  # no part of a character
    remove_temporaries(tmp_path, name)
    write_bytes(tmp_path / name, b"data")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    (tmp_path / name).unlink()
    with whole_folder(tmp_path / name):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_an_error_of_writing_names_the_file(number, tmp_path, monkeypatch):
    """``write`` and ``fsync`` do not know the name of their file."""

    def fail(handle):
        raise OSError(number, os.strerror(number))

    with pytest.raises(OSError, match=os.strerror(number)) as error, whole_file(tmp_path / "file"):
        fail(0)
    assert error.value.filename == str(tmp_path / "file")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match=os.strerror(number)) as error:
        write_bytes(tmp_path / "file", b"data")
    assert error.value.filename == str(tmp_path / "file")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    with pytest.raises(FileNotFoundError) as error:
        write_bytes(tmp_path / "none" / "file", b"data")
    assert error.value.filename == str(tmp_path / "none" / "file")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_without_file_locks_the_work_goes_on_with_one_line(number, tmp_path, monkeypatch, capsys):
    def flock(handle, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path, "training"):
        write_bytes(tmp_path / "file", b"data")
    assert capsys.readouterr().err == (
        f"{tmp_path}: its file system has no file locks, make sure that no other process is training here\n"
    )
    killed = temporary_path(tmp_path / "file")
    killed.touch()
    remove_temporaries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF])
def test_where_folders_cannot_be_synced_the_work_goes_on_with_one_line(number, tmp_path, monkeypatch, capsys):
    fsync = os.fsync

    def of_files(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", of_files)
    with locked(tmp_path, "training"):
        write_bytes(tmp_path / "file", b"data")
        with whole_folder(tmp_path / "folder"):
            pass
    assert capsys.readouterr().err == (
        f"{tmp_path}: its file system cannot sync a folder, a power failure may undo the last renames\n"
    )


def test_a_folder_that_fails_to_sync_is_an_error_that_names_it(tmp_path, monkeypatch):
    fsync = os.fsync

    def of_files(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EIO, "Input/output error")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", of_files)
    with pytest.raises(OSError, match="Input/output error") as error:
        write_bytes(tmp_path / "file", b"data")
    assert error.value.filename == str(tmp_path)


def test_two_processes_may_replace_one_folder(tmp_path):
    with whole_folder(tmp_path / "export") as first:
        (first / "file").write_text("first")
        with whole_folder(tmp_path / "export") as second:
            (second / "file").write_text("second")
    assert contents(tmp_path) == {"export/file": "first"}
