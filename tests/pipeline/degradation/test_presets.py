"""Presets of realistic degradation, and those of users in TOML files."""

from __future__ import annotations

import pytest

from pipeline.degradation.presets import PRESETS, find_degradation
from pipeline.degradation.settings import PresetError

FROZEN_PRESETS = {"surveillance": "165b587ff2c63073", "webcam": "085d32953bf9dc5f", "blind-sr": "d7883d01d2224cce"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gama = [1, 1]\n[[rounds]]", "unknown setting 'gama', expected shrink, enlarge, gamma"),
        ("[[rounds]]\nnoise = [5, 1]", "noise is [5.0, 1.0], expected the smaller number first"),
        ("[[rounds]]\nnoise = 5", "noise is 5.0, expected two numbers, the smaller first"),
        ("[[rounds]]\nnoise = [1, 'a']", "noise is 'a', expected 0 to 64"),
        ("[[rounds]]\nnoise = [1, nan]", "noise is nan, expected 0 to 64"),
        ("[[rounds]]\ngaussian = 0.7\nsinc = 0.7", "together is 1.4, expected 0 to 1"),
        ("gamma = [1, 1]", "0 rounds, expected one or two: write [[rounds]] above each"),
        ("rounds = 3", "write [[rounds]]"),
        ("shrink = {bicubic = 1}\n[[rounds]]", "expected fractions by kernel: area, linear, cubic, lanczos, nearest"),
        ("shrink = {cubic = 0.5}\n[[rounds]]", "shrink: the sum of the fractions is 0.5, expected 1"),
        (f"interlaced = 1{'0' * 400}\n[[rounds]]", "interlaced is inf, expected 0 to 1"),
        (f"gamma = '{'x' * 9000}'\n[[rounds]]", "expected two numbers, the smaller first"),
        ("twice = 1.5\n[[rounds]]\n[[rounds]]", "twice is 1.5, expected 0 to 1"),
        ("interlaced = true\n[[rounds]]", "interlaced is True, expected 0 to 1"),
        ("[[rounds", "mine.toml: "),
    ],
)
def test_a_wrong_preset_is_one_line(tmp_path, text, says):
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(PresetError) as error:
        find_degradation(str(tmp_path / "mine.toml"))
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_presets_are_frozen():
    """A resumed run uses the same preset: a changed one needs another name."""
    assert {name: preset.digest for name, preset in PRESETS.items()} == FROZEN_PRESETS


def test_a_file_of_two_rounds_has_the_digest_of_before_there_was_twice(tmp_path):
    text = "[[rounds]]\nnoise = [1, 2]\n[[rounds]]\n"
    (tmp_path / "two.toml").write_text(text)
    (tmp_path / "half.toml").write_text(f"twice = 0.5\n{text}")
    assert find_degradation(str(tmp_path / "two.toml")).digest == "2a6adf60496e195c"
    assert find_degradation(str(tmp_path / "half.toml")).digest != "2a6adf60496e195c"


def test_only_a_digest_follows_the_hash(tmp_path):
    (tmp_path / "a#b.toml").write_text("[[rounds]]")
    found = find_degradation(str(tmp_path / "a#b.toml"))
    assert (found.label, find_degradation(str(found))) == ("a#b", found)
    for text in ("surveillance#165b587ff2c63073", f"{tmp_path}/a.toml#b", f"{tmp_path}/a.toml#"):
        with pytest.raises(PresetError):
            find_degradation(text)


def test_whole_numbers_have_the_digest_of_floats(tmp_path):
    (tmp_path / "whole.toml").write_text("shrink = {area = 1}\ngamma = [1, 2]\n[[rounds]]")
    (tmp_path / "float.toml").write_text("shrink = {area = 1.0}\ngamma = [1.0, 2.0]\n[[rounds]]")
    assert find_degradation(str(tmp_path / "whole.toml")) == find_degradation(str(tmp_path / "float.toml"))


def test_a_file_that_is_missing_is_one_line(tmp_path):
    with pytest.raises(
        PresetError, match=r"none\.toml: No such file or directory; expected a TOML file with a preset$"
    ):
        find_degradation(str(tmp_path / "none.toml"))
