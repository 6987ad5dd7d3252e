"""Which network a file contains, at any depth; messages about it, and about files without one."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest
import torch

from model.errors import CheckpointError
from model.formats.foreign.recognise import recognise
from pipeline.named_specs import NAMED_SPECS
from pipeline.spec import Preprocessing
from tests.model.formats.foreign.golden import keys_of, meta_state
from tests.model.formats.foreign.oracles import iresnet_keys, vit_keys

PATH = Path("x.pth")
IRESNET = meta_state(keys_of("insightface-iresnet18"))
ADAFACE = meta_state(keys_of("adaface-ir18"))  # names begin with "model."
BARE_IR = {name.removeprefix("model."): value for name, value in ADAFACE.items()}
OPTIMIZER = {"state": {0: {"momentum_buffer": torch.empty(3)}}, "param_groups": [{"lr": 0.1}]}
HEAD = torch.empty(512, 9, device="meta")


def prefixed(prefix, state=IRESNET):
    return {prefix + name: value for name, value in state.items()}


def error_of(content):
    with pytest.raises(CheckpointError) as error:
        recognise(PATH, content)
    text = str(error.value)
    assert text.startswith("x.pth: ")
    assert text.isascii()
    assert text.isprintable()
    return text.removeprefix("x.pth: ")


READ = "x.pth: insightface iresnet18, read as ir18"


@pytest.mark.parametrize(
    ("content", "took"),
    [
        (IRESNET, ""),
        (prefixed("module."), "; took module.*"),
        (prefixed("_orig_mod."), "; took _orig_mod.*"),
        (prefixed("module._orig_mod.backbone."), "; took module._orig_mod.backbone.*"),
        ({"state_dict": IRESNET}, "; took state_dict"),
        ({"model": IRESNET, "optimizer": OPTIMIZER, "epoch": 3}, "; took model, without optimizer, epoch"),
        ({"a": {"b": {"c": prefixed("net.")}}, "d": 1}, "; took a: b: c: net.*, without d"),
        ({**IRESNET, "head.weight": HEAD.T, "head.t": torch.zeros(1)}, "; took the network, without head.*"),
        ({**prefixed("backbone."), "kernel": HEAD, "m": torch.zeros(1)}, "; took backbone.*, without kernel, m"),
        (
            {"state_dict": {**prefixed("a."), **prefixed("ema.a.")}},
            "; took state_dict: ema.a.*, the averaged weights, without a.*",
        ),
        ({"model": IRESNET, "model_ema": IRESNET}, "; took model_ema, the averaged weights, without model"),
        (
            {"state_dict": IRESNET, "state_dict_ema": prefixed("module.")},
            "; took state_dict_ema: module.*, the averaged weights, without state_dict",
        ),
        ({"model": IRESNET, "ema": {"shadow": IRESNET}}, "; took ema: shadow, the averaged weights, without model"),
    ],
)
def test_the_network_is_found_in_any_wrapping_and_the_rest_is_named(content, took):
    network = recognise(PATH, content)
    assert network.note == READ + took
    assert str(network.match.choice) == "ir18"


@pytest.mark.parametrize(
    ("state", "choice", "spec", "title"),
    [
        (IRESNET, "ir18", NAMED_SPECS["insightface"], "insightface iresnet18"),
        (meta_state(iresnet_keys((3, 4, 6, 3))), "ir34", NAMED_SPECS["insightface"], "insightface iresnet34"),
        (meta_state(iresnet_keys((6, 26, 60, 6))), "ir200", NAMED_SPECS["insightface"], "insightface iresnet200"),
        (prefixed("features.module."), "ir18", NAMED_SPECS["magface"], "MagFace iresnet18"),
        (prefixed("module.features."), "ir18", NAMED_SPECS["magface"], "MagFace iresnet18"),
        (ADAFACE, "ir18:origin=adaface", NAMED_SPECS["adaface"], "AdaFace IR-18"),
        (prefixed("net.", BARE_IR), "ir18:origin=adaface", NAMED_SPECS["insightface"], "CVLface IR-18"),
        (
            meta_state(vit_keys(8, 512, 12, 2560)),
            "cvlface_vit_small",
            NAMED_SPECS["insightface"],
            "CVLface ViT small",
        ),
        (
            prefixed("net.", meta_state(vit_keys(8, 512, 24, 1536))),
            "cvlface_vit_base",
            NAMED_SPECS["insightface"],
            "CVLface ViT base",
        ),
        (meta_state(vit_keys(9, 768, 24, 3072)), "insightface_vit_l", NAMED_SPECS["insightface"], "insightface ViT l"),
        (
            meta_state(keys_of("facenet-pytorch-InceptionResnetV1")),
            "inception_resnet_v1",
            NAMED_SPECS["facenet"],
            "facenet-pytorch InceptionResnetV1",
        ),
        (meta_state(keys_of("reference-IR_50")), "ir50:origin=reference", Preprocessing(), "reference IR-50"),
        (meta_state(keys_of("reference-ResNet_50")), "resnet50_stem7", Preprocessing(), "reference ResNet-50"),
        (
            {
                **meta_state(keys_of("reference-IR_50")),
                "output_layer.3.weight": torch.empty(512, 512 * 49, device="meta"),
            },
            "ir50:origin=reference",
            NAMED_SPECS["insightface"],
            "face.evoLVe IR-50",
        ),
    ],
)
def test_project_and_preprocessing_follow_from_names_and_shapes(state, choice, spec, title):
    network = recognise(PATH, state)
    assert (str(network.match.choice), network.match.spec, network.match.title) == (choice, spec, title)


def test_a_stated_order_of_colours_counts_for_cvlface_alone():
    assert recognise(PATH, prefixed("net.", BARE_IR), color="BGR").match.spec == NAMED_SPECS["adaface"]
    assert recognise(PATH, ADAFACE, color="RGB").match.spec == NAMED_SPECS["adaface"]


def test_tensors_that_only_change_nothing_are_filled():
    state = recognise(PATH, ADAFACE).state
    assert state["7.4.weight"].tolist() == [1.0] * 512
    assert state["7.4.bias"].tolist() == [0.0] * 512
    old = {name: value for name, value in IRESNET.items() if not name.endswith("num_batches_tracked")}
    assert recognise(PATH, old).state["1.num_batches_tracked"].item() == 0  # of PyTorch before 0.4.1


def test_counters_may_be_halves_as_the_weights_are():
    half = {name: value.half() for name, value in IRESNET.items()}  # {name: value.half() ...} converts them, too
    counter = recognise(PATH, half).state["1.num_batches_tracked"]
    assert (counter.item(), counter.dtype) == (0, torch.int64)
    half["bn1.num_batches_tracked"] = torch.zeros(2).half()
    assert "bn1.num_batches_tracked is (2,), expected ()" in error_of(half)


def test_the_bias_before_the_last_normalisation_and_an_epsilon_move_into_it():
    real = {name: torch.zeros(value.shape) for name, value in IRESNET.items() if value.dim() == 1}
    real |= {"features.running_mean": torch.full((512,), 3.0), "fc.bias": torch.full((512,), 0.5)}
    state = recognise(PATH, {**IRESNET, **real}).state
    assert state["7.4.running_mean"].tolist() == [2.5] * 512
    assert state["1.running_var"].tolist() == [0.0] * 64
    magface = recognise(PATH, prefixed("features.module.", {**IRESNET, **real})).state
    assert magface["1.running_var"].tolist() == pytest.approx([1e-5] * 64)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (
            {},
            "holds no tensors by name: neither a checkpoint of this tool nor a bare state dict; expected a state dict of",
        ),
        (
            {"epoch": 3, "optimizer": OPTIMIZER},
            "no known network in its 1 tensor in optimizer: state: 0: momentum_buffer",
        ),
        (
            {"conv1.weight": torch.empty(64, 3, 7, 7), "fc.weight": torch.empty(1000, 2048)},
            "no known network in its 2 tensors: conv1.weight (64, 3, 7, 7), fc.weight (1000, 2048), ...; nearest is",
        ),
        (
            {"state_dict": {"encoder.w": torch.empty(3)}},
            "no known network in its 1 tensor in state_dict: encoder.w (3,), ...; expected a state dict of insightface, ",
        ),
        (
            {"student": IRESNET, "teacher": IRESNET},
            "holds 2 networks, in student, teacher; save the one to use alone: torch.save(network.state_dict(), ...)",
        ),
        ({str(number): IRESNET for number in range(40)}, "holds 40 networks, in 0, 1, 2, 3, 4, ...; save the one"),
        (
            {f"{number}.layer1.0.prelu.weight": HEAD for number in range(9999)} | {"a.conv1.weight": HEAD},
            "no known network in its 10,000 tensors: ",
        ),
        (
            {key: value for number in range(40) for key, value in prefixed(f"m{number}.").items()},
            "holds 40 networks, expected one; save the one to use alone",
        ),
        (
            {**IRESNET, "conv1.weight": torch.empty(64, 1, 3, 3)},
            "has the names of an iresnet of insightface, but conv1.weight is (64, 1, 3, 3), expected (64, 3, 3, 3); for",
        ),
        (
            {**IRESNET, "fc.weight": torch.empty(512, 512 * 50, device="meta")},
            "has the names of an iresnet of insightface, but fc.weight is (512, 25600), expected 512 x cells of a square",
        ),
        (
            {"a": {**IRESNET, "fc.weight": torch.empty(128, 512 * 49, device="meta")}},
            "its a has the names of an iresnet of insightface, but fc.weight is (128, 25088), expected (512, 25088)",
        ),
        (
            {name: value for name, value in IRESNET.items() if name != "layer2.1.bn3.bias"},
            "but layer2.1.bn3.bias is missing, expected (128,)",
        ),
        (
            {**IRESNET, "layer1.0.se.fc.weight": HEAD, "layer1.0.se.x": HEAD},
            "but 2 tensors more than expected, such as",
        ),
        (
            {**meta_state(vit_keys(8, 512, 24, 1536)), "keypoint_linear.0.weight": HEAD},
            "but its keypoint_linear takes landmarks beside the image (KP-RPE), which nothing here passes on",
        ),
        (
            meta_state(vit_keys(8, 384, 12, 1536)),
            "but patches of 8 px, width 384, 12 layers and a hidden layer of 1536",
        ),
        (meta_state(iresnet_keys((3, 8, 2, 3))), "but its stages have 3, 8, 2, 3 units, no iresnet here has: expected"),
        (
            {**IRESNET, "bn1.weight": torch.empty(64, dtype=torch.int64)},
            "bn1.weight has type torch.int64, torch.strided",
        ),
        ({**IRESNET, "bn1.weight": torch.empty(64).to_sparse()}, "bn1.weight has type torch.float32, torch.sparse_coo"),
        ({**ADAFACE, "model.body.0.res_layer.4.weight": torch.empty(2)}, "body.0.res_layer has no second convolution"),
        ({**IRESNET, "fc.bias": torch.empty(3)}, "but fc.bias is (3,), expected (512,)"),
        ({"a\x1b[2J\n" + "x" * 500: torch.empty(2)}, "no known network in its 1 tensor: a\\x1b[2J\\nxx"),
        (
            {"\ud800": {"\u202e": torch.empty(2)}},
            "no known network in its 1 tensor in \\ud800: \\u202e (2,), ...; expected",
        ),
    ],
)
def test_a_file_of_no_known_project_is_a_one_line_error(content, found):
    text = error_of(content)
    assert found in text
    assert len(text) < 800


def test_the_nearest_known_network_is_named():
    state = {f"w.{name}": value for name, value in BARE_IR.items() if not name.startswith("output_layer")}
    assert (
        "nearest is an IR network of AdaFace, CVLface, face.evoLVe or the reference, which has output_layer.3.weight,"
        " output_layer.4.running_mean, too; expected"
    ) in error_of(state)


def test_deep_and_circular_contents_end():
    deep = {}
    for _ in range(10_000):
        deep = {"a": deep, "b": [deep]}
    assert "holds no tensors" in error_of(deep)
    circle = {"a": IRESNET}
    circle["b"] = circle
    assert "holds 6 networks" in error_of(circle)
    wide = {str(number): {} for number in range(100_000)}
    assert "holds no tensors" in error_of(wide)


def test_modules_of_modules_end():
    module = collections.Counter()
    vars(module).update(_parameters={"w": torch.empty(1)}, _buffers={}, _modules={"m": module})
    assert "no known network in its 13 tensors: w (1,), m.w (1,), m.m.w (1,), ..." in error_of(module)
