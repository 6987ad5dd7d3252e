"""Views: sizes, ranges, and the presets by which they are degraded."""

from __future__ import annotations

import pytest

from model.options import OptionError
from model.training.changes import check_resumes
from model.training.config import TrainConfig, TrainingError
from model.training.views import View, parse_views
from pipeline.degradation.settings import PresetError


def test_views_are_sizes_ranges_and_repetitions():
    views = parse_views("128,8-32, 12x2")
    assert views == (View(128, 128), View(8, 32), View(12, 12, count=2))
    assert [view.name for view in views] == ["128", "8-32", "12"]
    config = TrainConfig(views="128,8-32, 12x2")
    assert config.all_views == (View(128, 128), View(8, 32), View(12, 12), View(12, 12))
    assert config.to_dict()["views"] == "128,8-32,12x2"


def test_views_name_their_degradation():
    text = "128,8-32x2@surveillance,16@webcam"
    views = parse_views(text)
    assert ",".join(map(str, views)) == text
    assert [view.name for view in views] == ["128", "8-32@surveillance", "16@webcam"]
    config = TrainConfig(views=text)
    assert config.to_dict()["views"] == text
    assert [view.for_loader[:2] for view in config.all_views] == [(128, 128), (8, 32), (8, 32), (16, 16)]
    assert [view.for_loader[2].label for view in config.all_views[1:]] == ["surveillance", "surveillance", "webcam"]
    check_resumes(config, {**config.to_dict()})
    with pytest.raises(TrainingError, match="views was 128,8-32x2,16 when this run started"):
        check_resumes(config, {**config.to_dict(), "views": "128,8-32x2,16"})


PRESET = """
shrink = {area = 0.5, cubic = 0.5}
gamma = [0.8, 1]

[[rounds]]
gaussian = 1
quality = [30, 60]
"""


def test_a_preset_of_the_user_is_identified_by_its_content(tmp_path):
    file, copy = tmp_path / "mine.toml", tmp_path / "copy.toml"
    file.write_text(PRESET)
    copy.write_text(PRESET.replace("1\n", "1.0\n") + "# the same\n")
    (view,) = parse_views(f"8-32@{file}")
    assert view.name == "8-32@mine"
    assert view.degradation.preset.rounds[0].quality == (30, 60)
    saved = TrainConfig(views=f"8-32@{file}").to_dict()
    check_resumes(TrainConfig(views=f"8-32@{copy}"), saved)
    file.write_text(PRESET.replace("60", "70"))
    with pytest.raises(
        TrainingError, match=r"views was 8-32@.*mine.toml#\w{16} when .* now it is 8-32@.*mine.toml#\w{16};"
    ):
        check_resumes(TrainConfig(views=f"8-32@{file}"), saved)
    with pytest.raises(
        PresetError, match=r"mine.toml: has changed: its digest is \w{16}, not \w{16}; restore the file"
    ):
        _ = TrainConfig(**saved).views[0].degradation.preset
    file.unlink()
    check_resumes(TrainConfig(views=f"8-32@{copy}"), saved)


@pytest.mark.parametrize("text", ["8@", "8@cctv", "8@webcamx2", "200@webcam", "8@x.toml", "8@a,@b"])
def test_invalid_presets_are_one_line(text):
    with pytest.raises(OptionError, match="views '") as error:
        parse_views(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "8,", "1", "32-8", "8-", "-8", "8x0", "8x", "a", "8.5", "\u00b2", "8 12"])
def test_invalid_views_are_one_line(text):
    with pytest.raises(OptionError, match="views '") as error:
        parse_views(text)
    assert ("at least one image" in str(error.value)) == ("x0" in text)
    assert "\n" not in str(error.value)
