"""Settings of a run: choices, schedules, what a saved configuration means, and what is refused."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re

import numpy as np
import pytest
import torch

from model.options import Choice, OptionError, parse_choice
from model.training.changes import check_resumes
from model.training.config import TrainConfig, TrainingError
from model.training.recipes import compose
from model.training.schedule import SCHEDULES
from model.training.views import View


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("ir50", "ir50", {}),
        (" arcface : scale = 32, margin=0.5 ", "arcface", {"scale": 32, "margin": 0.5}),
        ("spherenet20:pooling=true,dropout=1e-1", "spherenet20", {"pooling": True, "dropout": 0.1}),
        ("step:at=0.4/0.6,factor=0.1", "step", {"at": (0.4, 0.6), "factor": 0.1}),
        ("step:at=0.4/", "step", {"at": (0.4,)}),
        ("x:word=high", "x", {"word": "high"}),
    ],
)
def test_choices_are_parsed_and_printed(text, name, options):
    choice = parse_choice(text)
    assert choice == Choice(name, options)
    assert parse_choice(str(choice)) == choice


@pytest.mark.parametrize("text", ["", ":a=1", "x:", "x:a", "x:a=", "x:=1", "x:a=1,a=2", "x:a=1,,b=2"])
def test_an_invalid_choice_is_one_line(text):
    with pytest.raises(OptionError, match="expected") as error:
        parse_choice(text)
    assert "\n" not in str(error.value)


def test_settings_of_later_versions_are_stated_only_if_they_are_set():
    """Configurations of earlier versions stay equal, byte by byte."""
    assert not {"order", "window", "teacher"} & set(TrainConfig().to_dict())
    config = TrainConfig(order="sequential", window=8)
    assert {name: config.to_dict()[name] for name in ("order", "window")} == {"order": "sequential", "window": 8}
    assert (config.shard_window, TrainConfig().shard_window) == (8, None)
    assert TrainConfig(order="sequential").shard_window == 16
    assert TrainConfig(**config.to_dict()) == config


def factors(text, steps=10):
    schedule = SCHEDULES.parse(text)
    return [schedule.factor_at(step, steps) for step in range(steps)]


def test_schedules():
    assert factors("step:at=0.4/0.8") == pytest.approx([1] * 4 + [0.1] * 4 + [0.01] * 2)
    assert factors("step:at=0.5,factor=0.5") == pytest.approx([1] * 5 + [0.5] * 5)
    assert factors("constant") == [1.0] * 10
    assert factors("constant:warmup=0.4") == pytest.approx([0.25, 0.5, 0.75] + [1] * 7)
    cosine = factors("cosine:least=0.2,warmup=0.2")
    expected = [0.5, 1.0] + [0.2 + 0.8 * (1 + math.cos(math.pi * done / 8)) / 2 for done in range(8)]
    assert cosine == pytest.approx(expected)


def test_a_saved_configuration_is_compared_by_value():
    saved = TrainConfig(backbone="spherenet4:pooling=true", head="arcface").to_dict()
    check_resumes(
        TrainConfig(backbone="spherenet4:pooling=true", head="arcface"),
        {**saved, "backbone": " spherenet4 : pooling=True", "views": "128, 8,12,016", "head": "arcface", "lr": 0.1},
    )
    for name, value in {"backbone": "spherenet4", "views": "128,8", "head": "vgg", "lr": None, "freeze": "0"}.items():
        with pytest.raises(TrainingError, match=f"{name} was {value} when this run started, now it is"):
            check_resumes(TrainConfig(backbone="spherenet4:pooling=true", head="arcface"), {**saved, name: value})
    del saved["head"]
    with pytest.raises(TrainingError, match="head was amsoftmax when this run started, now it is arcface:scale="):
        check_resumes(TrainConfig(backbone="spherenet4:pooling=true", head="arcface"), saved)


def test_a_configuration_from_before_an_option_means_what_it_did_then():
    """Options that an older version did not have are missing. Initial rows do not matter to a resumed run."""
    saved = {
        **compose("modern", None, {}).to_dict(),
        "head": "adaface:scale=64.0,margin=0.4,h=0.333,momentum=0.01,sample=1.0,seed=0",
        "losses": "cross-entropy+octuplet:weight=1.0,margin=0.5",
    }
    del saved["class_rows"]
    check_resumes(compose("modern", None, {}), saved)
    for head, says in {
        "adaface:form=authors": "head adaface has changed since this run started: form was paper, now authors; choose",
        "adaface:sample=0.1,sampling=insightface": "sample was 1.0, now 0.1; sampling was lrfr, now insightface; choose",
        "arcface": "head was adaface:scale=64.0,margin=0.4,h=0.333,momentum=0.01,sample=1.0,seed=0 when this run started",
    }.items():
        with pytest.raises(TrainingError, match=re.escape(says)):
            check_resumes(compose("modern", None, {"head": head}), saved)
    with pytest.raises(TrainingError, match="losses was cross-entropy"):
        check_resumes(compose("modern", None, {"losses": "cross-entropy+octuplet:form=authors"}), saved)


def test_a_configuration_shows_what_differs_from_the_defaults():
    config = TrainConfig(head="arcface:scale=32", steps=5, lr=0.1)
    assert (
        repr(config)
        == str(config)
        == "TrainConfig(head='arcface:scale=32.0,margin=0.5,form=authors,sample=1.0,sampling=lrfr,seed=0', steps=5)"
    )
    assert eval(repr(config)) == config
    assert repr(TrainConfig()) == "TrainConfig()"


def test_values_of_other_types_are_read_where_their_meaning_is_clear():
    config = TrainConfig(
        views=(128, View(8, 32)), pretrained=pathlib.Path("a.pt"), steps=np.int64(5), lr=np.float64(0.5)
    )
    assert config == TrainConfig(views="128,8-32", pretrained="a.pt", steps=5, lr=0.5)
    assert (type(config.steps), type(config.lr)) == (int, float)
    assert TrainConfig(views=[128, 8]) == TrainConfig(views="128,8")


def test_settings_are_immutable_and_replaced_by_text_or_value():
    config = TrainConfig(head="arcface:scale=32")
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.steps = 5
    changed = dataclasses.replace(config, steps=5, losses="focal")
    assert (changed.steps, str(changed.losses), changed.head) == (5, "focal:gamma=2.0,form=paper", config.head)
    assert dataclasses.replace(changed, head=config.head) == changed


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"head": "cosface"}, "head 'cosface' is unknown; did you mean amsoftmax? choose from softmax"),
        (
            {"head": "arcface:m=0.5"},
            "head arcface has no option 'm'; it has scale, margin, form, sample, sampling, seed",
        ),
        ({"losses": "triplet"}, "loss 'triplet' is unknown; did you mean hardest-triplet? choose from cross-entropy"),
        ({"losses": "hardest-triplet"}, "losses 'hardest-triplet': no criterion; expected one criterion"),
        ({"losses": "focal+cross-entropy"}, ": focal and cross-entropy; expected one criterion"),
        (
            {"losses": "focal+octuplet+hardest-triplet"},
            "octuplet and hardest-triplet; expected one criterion (cross-entropy or focal), and at most one metric loss",
        ),
        ({"optimizer": "sgd:nesterov=true,momentum=0"}, "nesterov needs a momentum above 0"),
        ({"optimizer": "adamw:beta1=1"}, "beta1 is 1, expected a finite number at least 0 and below 1"),
        ({"losses": "focal:gamma=-1"}, "loss focal: gamma is -1, expected a finite number at least 0"),
        ({"optimizer": "lion"}, "optimizer 'lion' is unknown; choose from sgd, adamw"),
        (
            {"schedule": "step:at=2"},
            "schedule step: at is 2, expected a finite number at least 0 and at most 1",
        ),
        ({"backbone": "vgg"}, "backbone 'vgg' is unknown; choose from spherenet4"),
        ({"head": TrainConfig().schedule}, "head 'step' is unknown; choose from softmax"),
        ({"backbone": Choice("vgg")}, "backbone 'vgg' is unknown; choose from spherenet4"),
        ({"views": ("128", "8")}, "views is ('128', '8'), expected text in quotes, such as '128,8,12,16'"),
        ({"views": (128, 1)}, "views '128,1': found '1', expected sizes of at least 2 px"),
        ({"head": TrainConfig}, "expected text in quotes, such as 'amsoftmax'"),
        ({"steps": "5"}, "steps is '5', expected a whole number at least 1"),
        ({"lr": "0.1"}, "lr is '0.1', expected a finite number above 0"),
        (
            {"batch_size": 1, "views": "128", "backbone": "ir50"},
            "a batch is one image, but ir50 has batch normalisation",
        ),
        (
            {"init": "data", "class_rows": "insightface"},
            "init data gives class rows the length 1, but class_rows is insightface: choose adaface",
        ),
        (
            {"head": "arcface:sampling=insightface"},
            "sampling is insightface, but sample is 1, all classes; lower sample",
        ),
        ({"head": "adaface,form=authors"}, "write options after a colon, adaface:form=authors; choose from softmax"),
        ({"head": "AdaFace"}, "head 'AdaFace' is unknown; did you mean adaface? choose from softmax"),
        ({"head": "sv_softmax"}, "did you mean svsoftmax? choose"),
        ({"head": "vgg"}, "head 'vgg' is unknown; choose from softmax"),
        ({"head": " "}, "head is empty; choose from softmax"),
        ({"losses": "cross-entropy+"}, "loss is empty; choose from cross-entropy"),
        ({"losses": "cross-entropy,octuplet"}, "join terms with +, as in cross-entropy+octuplet"),
        ({"losses": "ce"}, "loss 'ce' is unknown; choose from cross-entropy"),
        (
            {"losses": "cross-entropy+octuplet:form=authors", "views": "128x2"},
            "compares views, but views has one; add one",
        ),
        (
            {"init": "adaface"},
            "init adaface is for networks with batch normalisation; spherenet20 has none: choose pytorch",
        ),
        ({"batch_size": 1, "views": "128", "init": "data"}, "a batch is one image, but init data fits the first batch"),
        ({"backbone": "mobilefacenet:pooling=true"}, "mobilefacenet has no option 'pooling'"),
    ],
)
def test_an_unknown_choice_or_option_is_an_error(changes, says):
    with pytest.raises(OptionError) as error:
        TrainConfig(**changes)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_reading_settings_does_not_change_the_random_state():
    before = torch.get_rng_state()
    compose("modern", None, {})
    assert torch.equal(torch.get_rng_state(), before)
