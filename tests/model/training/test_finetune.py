"""Fine-tuning: weights from a checkpoint, a new head, frozen stages."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from model.backbones import build_backbone
from model.backbones.stages import freeze_stages, stages
from model.formats.checkpoint import checkpoints, read_checkpoint
from model.options import OptionError
from model.training.config import TrainConfig, TrainingError
from model.training.loop import train
from model.training.state import new_run
from pipeline.spec import Preprocessing
from tests.model.training.runs import CLASSES, SPEC, Stream

STAGES = {
    "spherenet10": [64, 32, 16, 8],
    "ir18": [128, 64, 32, 16, 8],
    "resnet50": [128, 64, 32, 16, 8],
    "densenet121": [128, 64, 32, 16, 8],
    "mobilefacenet": [64, 32, 16, 8],
    "irb152": [128, 64, 32, 16, 8],
    "resnet50_stem7": [64, 32, 16, 8, 4],
    "inception_resnet_v1": [63, 61, 30, 28, 13, 6, 2],
}


@pytest.mark.parametrize("name", STAGES)
def test_stages_group_layers_by_output_resolution(name):
    with torch.device("meta"):
        backbone, x, heights = build_backbone(name).eval(), torch.zeros(1, 3, 128, 128), []
    found = stages(backbone, 128)
    with torch.no_grad():
        for stage in found:
            for layer in stage:
                x = layer(x)
            heights.append(x.shape[-1])
    assert heights == STAGES[name]
    kept = {id(parameter) for stage in found for layer in stage for parameter in layer.parameters()}
    left = [name for name, parameter in backbone.named_parameters() if id(parameter) not in kept]
    assert left
    assert left[-1].split(".")[0] == list(backbone.named_parameters())[-1][0].split(".")[0]


def test_the_stages_of_a_transformer_are_its_layers():
    assert len(stages(build_backbone("vit_small", image_size=32), 32)) == 13


@pytest.mark.parametrize(("name", "count"), [("spherenet10", 2), ("mobilefacenet", 1), ("vit_small", 3)])
def test_frozen_stages_keep_weights_and_statistics_and_the_others_learn(tmp_path, name, count):
    before = build_backbone(name, image_size=32).state_dict()
    settings = TrainConfig(
        backbone=name, pretrained="net.pt", freeze=count, batch_size=3, steps=2, lr=0.05, weight_decay=0.1
    )
    state = new_run(settings, classes=CLASSES, preprocessing=SPEC, weights=before)
    backbone = state.learner.backbone
    frozen = {
        f"{prefix}{key}"
        for prefix, module in _prefixes(backbone, [layer for stage in stages(backbone, 32)[:count] for layer in stage])
        for key in module.state_dict()
    }
    train(Stream(), state, tmp_path)
    after = read_checkpoint(checkpoints(tmp_path)[-1])["backbone_state"]
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    positions = {"positions"} if name == "vit_small" else set()
    assert changed == set(before) - frozen - positions
    assert len(frozen) > 2
    state.learner.train()
    assert [module.training for stage in stages(backbone, 32)[:count] for module in stage] == [False] * sum(
        len(stage) for stage in stages(backbone, 32)[:count]
    )


def _prefixes(backbone, modules):
    names = {id(module): name for name, module in backbone.named_modules()}
    return [(f"{names[id(module)]}.", module) for module in modules]


def test_freezing_too_many_stages_is_an_error():
    with pytest.raises(OptionError, match="freeze is 5, but the backbone has 4 stages; choose at most 4"):
        freeze_stages(build_backbone("spherenet4", image_size=32), 5, 32)


def test_weights_of_another_network_are_an_error():
    settings = TrainConfig(backbone="spherenet4", pretrained="net.pt", batch_size=3)
    with pytest.raises(TrainingError, match=r"^weights do not fit spherenet4 \("):
        new_run(TrainConfig(backbone="spherenet4"), classes=CLASSES, preprocessing=SPEC, weights={})
    with pytest.raises(TrainingError, match=r"net\.pt: its weights do not fit spherenet4 \(") as error:
        new_run(
            settings, classes=3, preprocessing=SPEC, weights=build_backbone("spherenet10", image_size=32).state_dict()
        )
    assert "\n" not in str(error.value)


def test_a_fine_tuned_run_starts_at_the_given_weights_with_a_new_head():
    weights = build_backbone("spherenet4", image_size=32).state_dict()
    settings = TrainConfig(backbone="spherenet4", pretrained="net.pt", batch_size=3)
    state = new_run(settings, classes=3, preprocessing=SPEC, weights=weights)
    for name, value in state.learner.backbone.state_dict().items():
        assert torch.equal(value, weights[name])
    assert state.learner.head.weight.shape == (3, 512)


def test_a_checkpoint_has_the_spec_of_the_network_and_that_of_the_shards(tmp_path):
    settings = TrainConfig(backbone="spherenet4", batch_size=3, steps=1)
    aligned, unaligned = Preprocessing(**SPEC), Preprocessing(size=32, template="none", warp="pillow-bicubic")
    state = new_run(settings, classes=CLASSES, preprocessing=aligned, trained_on=unaligned)
    train(Stream(), state, tmp_path)
    path = checkpoints(tmp_path)[-1]
    content = read_checkpoint(path)
    assert (content["preprocessing"], content["trained_on"]) == (aligned.to_dict(), unaligned.to_dict())
    other = new_run(dataclasses.replace(settings, steps=2), classes=CLASSES, preprocessing=SPEC)
    with pytest.raises(TrainingError, match="its preprocessing differs from the shards' in template, warp"):
        other.restore(content, path)
