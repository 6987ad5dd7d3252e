"""Presets of realistic degradation, and those of users in TOML files."""

from __future__ import annotations

import pytest

from pipeline.degradation.presets import PRESETS, PresetError, find_degradation

FROZEN_PRESETS = {"surveillance": "165b587ff2c63073", "webcam": "085d32953bf9dc5f", "blind-sr": "901b84ad7946849b"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gama = [1, 1]\n[[rounds]]", "unknown setting 'gama', expected shrink, enlarge, gamma"),
        ("[[rounds]]\nnoise = [5, 1]", "noise is [5.0, 1.0], expected the smaller number first"),
        ("[[rounds]]\nnoise = 5", "noise is 5.0, expected two numbers, the smaller first"),
        ("[[rounds]]\nnoise = [1, 'a']", "noise is 'a', expected 0 to 64"),
        ("[[rounds]]\nnoise = [1, nan]", "noise is nan, expected 0 to 64"),
        ("[[rounds]]\ngaussian = 0.7\nsinc = 0.7", "together is 1.4, expected 0 to 1"),
        ("gamma = [1, 1]", "0 rounds, expected one or two"),
        ("rounds = 3", "write [[rounds]]"),
        ("shrink = {bicubic = 1}\n[[rounds]]", "expected fractions by kernel: area, linear, cubic, lanczos, nearest"),
        ("shrink = {cubic = 0.5}\n[[rounds]]", "shrink: the sum of the fractions is 0.5, expected 1 to 1"),
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


def test_presets_are_frozen():
    """A run that goes on draws from the same preset: what is changed needs another name."""
    assert {name: preset.digest for name, preset in PRESETS.items()} == FROZEN_PRESETS
