"""Counts and commands in messages."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys

import pytest

from shards.messages import command, counted, print_stderr, printable


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (1, "identity", "1 identity"),
        (2345, "identity", "2,345 identities"),
        (2, "other entry", "2 other entries"),
        (2, "day", "2 days"),
        (1, "person", "1 person"),
        (2, "person", "2 people"),
        (2, "class", "2 classes"),
    ],
)
def test_nouns_agree_with_their_number(number, noun, text):
    assert counted(number, noun) == text


@pytest.mark.parametrize(
    ("called", "text"),
    [
        ("/opt/lrfr/.venv/bin/lrfr", "lrfr verify 'my data'"),
        ("cli.py", "python cli.py verify 'my data'"),
        ("../lrfr/cli.py", "python ../lrfr/cli.py verify 'my data'"),
        ("notebook.py", "lrfr verify 'my data'"),
    ],
)
def test_commands_are_named_as_they_are_typed(monkeypatch, called, text):
    monkeypatch.setattr(sys, "argv", [called])
    assert command("verify", "my data") == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("n000001/0001_01.jpg", "n000001/0001_01.jpg"),
        ("caf\u00e9 \u4e2d\u6587 'x' \\ y", "caf\u00e9 \u4e2d\u6587 'x' \\ y"),
        ("\x1b]0;owned\x07\x1b[31mred", r"\x1b]0;owned\x07\x1b[31mred"),
        ("a\n\r\tb\0", r"a\n\r\tb\x00"),
        ("\x7f\x9b31m\x85\u2028", r"\x7f\x9b31m\x85\u2028"),
        ("\u202egpj.exe\u200b\ufeff", r"\u202egpj.exe\u200b\ufeff"),
        (os.fsdecode(b"\xff\xfe.jpg"), r"\udcff\udcfe.jpg"),
    ],
)
def test_text_is_shown_on_one_line_without_control_characters(text, shown, capsys):
    assert printable(text) == shown
    assert printable(shown) == shown
    print_stderr(text)
    assert capsys.readouterr().err == f"{shown}\n"


def test_a_message_that_nobody_can_read_is_dropped(stop_reading):
    stop_reading()
    print_stderr("step 20")
    print_stderr("step 40")


@pytest.mark.parametrize(("number", "drops"), [(errno.EPIPE, True), (errno.EIO, True), (errno.ENOSPC, False)])
def test_a_message_is_dropped_only_if_its_reader_has_gone(number, drops, monkeypatch):
    """EIO: a terminal that is closed."""

    class Stream(io.StringIO):
        def flush(self):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(sys, "stderr", Stream())
    with contextlib.nullcontext() if drops else pytest.raises(OSError, match="No space left"):
        print_stderr("step 20")
