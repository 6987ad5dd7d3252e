"""Counts and commands in messages."""

from __future__ import annotations

import sys

import pytest

from shards.messages import command, counted


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (0, "image", "0 images"),
        (1, "image", "1 image"),
        (1, "identity", "1 identity"),
        (2345, "identity", "2,345 identities"),
        (2, "other entry", "2 other entries"),
        (2, "day", "2 days"),
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
