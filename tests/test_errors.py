"""Expected failures: one line, which says what is wrong and suggests only what helps; --debug adds the traceback."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys

import click
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import cli
from commands.group import CommandError, Commands, expected, line_of
from model.backbones import build_backbone
from shards.errors import LrfrError
from tests.processes import PATIENCE_S, REPOSITORY, error_of

NO_THREAD = "Resource temporarily unavailable"
NO_SEGMENT = "failed to map segment from shared object"
AGAIN = "then run the same command again"
MEMORY = "out of memory: lower --workers, --batch-size or --max-pixels if the command has them, or end other programs"
RIGHTS = "change the permissions of it or of a folder above (namei -l shows them)"
PROCESSES = (
    "too many processes or threads: end some, raise the limit (ulimit -u), or lower --workers if the command has it"
)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (CommandError("a.csv, row 3: expected 10 numbers, found 8"), "a.csv, row 3: expected 10 numbers, found 8"),
        (OSError(errno.ENOSPC, "No space left"), f"No space left; free space, or inodes (df -i), {AGAIN}"),
        (OSError(errno.EMFILE, "Too many", "a"), f"a: Too many; raise the limit of open files (ulimit -n), {AGAIN}"),
        (MemoryError(), f"{os.strerror(errno.ENOMEM)}; {MEMORY}, {AGAIN}"),
        (Exception(f"a thread: {NO_THREAD}"), f"a thread: {NO_THREAD}; {PROCESSES}, {AGAIN}"),
        (RuntimeError("can't start new thread"), f"can't start new thread; {PROCESSES}, {AGAIN}"),
        (OSError(errno.ENOENT, os.strerror(errno.ENOENT)), "the current folder has been deleted; change to another one"),
        (OSError(errno.ENOENT, "Failed to open local file 'a'"), "Failed to open local file 'a'"),
        (ImportError(f"libx.so: {NO_SEGMENT}"), f"libx.so: {NO_SEGMENT}; {MEMORY}, {AGAIN}"),
        (PermissionError(errno.EACCES, "Permission denied", b"/a/b"), f"/a/b: Permission denied; {RIGHTS}, {AGAIN}"),
        (OSError(errno.ENOTDIR, "Not a directory", 3), "Not a directory"),
        (OSError("no error number"), "no error number"),
        (CommandError("a\n\x1b[31m.csv: wrong"), r"a\n\x1b[31m.csv: wrong"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", b"\xff\x1b"), r"\udcff\x1b: No such file or directory"),
    ],
)  # fmt: skip
def test_the_line_of_an_expected_error(error, line):
    assert expected(error)
    assert line_of(error) == line


SHORTAGES = [
    "ENOSPC",
    "EDQUOT",
    "EFBIG",
    "EROFS",
    "EMFILE",
    "ENFILE",
    "EAGAIN",
    "ENOMEM",
    "EIO",
    "ESTALE",
    "EACCES",
    "EPERM",
]


def test_each_shortage_has_a_remedy_of_its_own():
    lines = [line_of(OSError(getattr(errno, name), "what the system says")) for name in SHORTAGES]
    assert len(set(lines)) == len(SHORTAGES)
    assert all(re.fullmatch(r"what the system says; .+, then run the same command again", line) for line in lines)


def test_bugs_and_closed_pipes_are_not_expected():
    assert not expected(ValueError("a bug"))
    assert not expected(RuntimeError("a bug"))
    assert not expected(BrokenPipeError())


@click.group(cls=Commands)
@click.option("--debug", is_flag=True)
def main(debug):
    pass


@main.command()
@click.argument("kind")
def fail(kind):
    raise {"expected": LrfrError("wrong"), "file": FileNotFoundError(2, os.strerror(2), "a"), "bug": ValueError()}[kind]


@pytest.mark.parametrize(("kind", "line"), [("expected", "wrong"), ("file", "a: No such file or directory")])
def test_an_expected_error_is_one_line_and_exit_1(kind, line):
    result = CliRunner().invoke(main, ["fail", kind])
    assert (result.exit_code, result.stderr, result.stdout) == (1, f"Error: {line}\n", "")


def test_debug_adds_the_traceback():
    result = CliRunner().invoke(main, ["--debug", "fail", "expected"])
    first, *_, last = result.stderr.splitlines()
    assert (result.exit_code, first, last) == (1, "Traceback (most recent call last):", "Error: wrong")


def test_a_help_text_that_cannot_be_written_is_one_line(monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("click.decorators.echo", full)
    result = CliRunner().invoke(main, ["--help"])
    assert (result.exit_code, result.stderr.partition(";")[0]) == (1, "Error: No space left on device")


def test_a_bug_keeps_its_traceback():
    assert isinstance(CliRunner().invoke(main, ["fail", "bug"]).exception, ValueError)


def test_one_process_of_several_says_which_it_is(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert CliRunner().invoke(main, ["fail", "expected"]).stderr == "Error: rank 1: wrong\n"


def test_an_embedding_out_of_memory_says_what_to_lower(run, tmp_path, monkeypatch):
    def too_much(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("model.embedder.Embedder._embed", too_much)
    monkeypatch.setattr(sys, "path", list(sys.path))
    torch.save(build_backbone("spherenet4").state_dict(), tmp_path / "net.pth")
    Image.new("RGB", (128, 128)).save(tmp_path / "face.png")
    words = ["embed", tmp_path / "face.png", "--network", tmp_path / "net.pth", "--out", tmp_path / "x.parquet"]
    line = "Error: out of GPU memory (for 20.00 GiB): lower --batch-size (it is 64)"
    assert error_of(run(*words)) == f"{line}, or use --precision bf16"
    assert error_of(run(*words, "--precision", "bf16")) == line
    (tmp_path / "without_bf16.py").write_text("def network(images):\n    return images[:, 0, 0]\n")
    words[words.index("--network") + 1] = "without_bf16:network"
    assert error_of(run(*words)) == line  # it is run as it is: bf16 would be refused


@pytest.mark.parametrize(("words", "environment"), [(["--debug"], {}), ([], {"LRFR_DEBUG": "1"})])
def test_the_command_line_has_debug(words, environment, tmp_path):
    missing = ["verify", str(tmp_path / "none")]
    result = CliRunner().invoke(cli.main, [*words, *missing], env=environment)
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith(f"Error: {tmp_path}/none")
    assert "Traceback" not in CliRunner().invoke(cli.main, missing, env={"LRFR_DEBUG": ""}).stderr


def test_a_current_folder_that_was_deleted_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = CliRunner().invoke(cli.main, ["train", "--print-config"])  # without its check, PyTorch ends the process
    assert (result.exit_code, result.output) == (
        1,
        "Error: the current folder has been deleted; change to another one\n",
    )


def test_names_of_files_are_utf_8_whatever_the_locale(tmp_path):
    (tmp_path / "caf\xe9").mkdir()
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, REPOSITORY / "cli.py", "verify", tmp_path / "caf\xe9"]
    process = subprocess.run(
        command, capture_output=True, encoding="utf-8", env={**os.environ, **locale}, timeout=PATIENCE_S
    )
    assert (process.returncode, process.stderr.partition(":")[0]) == (1, "Error")
    assert f"{tmp_path}/caf\xe9" in process.stderr


@pytest.mark.parametrize("closed", [pytest.param("2>&-", marks=pytest.mark.heavy), "<&- >&- 2>&-"])
def test_a_closed_stream_neither_ends_a_command_nor_gives_its_number_to_a_file(closed, vggface2, tmp_path):
    """The next file that is opened would take the number 2, and native libraries would write warnings into it."""
    script = f'exec "$@" {closed}'
    for words in (["build-shards", "--root", vggface2, "--out", "x", "--workers", "1"], ["verify", "--full", "x"]):
        command = ["sh", "-c", script, "sh", sys.executable, REPOSITORY / "cli.py", *words]
        assert subprocess.run(list(map(str, command)), cwd=tmp_path, timeout=PATIENCE_S).returncode == 0, words
