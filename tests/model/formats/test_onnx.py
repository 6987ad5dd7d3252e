"""ONNX export: embeddings equal to PyTorch's, one file with metadata, no file if the embeddings differ."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import model.formats.export_onnx
from model.embedder import Embedder
from model.errors import CheckpointError, ExportError
from model.formats.export_onnx import Parity, export_onnx
from model.formats.network import LoadedNetwork
from model.inputs import normalise
from pipeline.spec import Preprocessing
from tests.networks import small_backbone
from tests.processes import REPOSITORY

SPEC = Preprocessing(size=32, mean=0.4, std=0.25)
DIGEST = "0123456789abcdef" * 2


def export(path, *, preprocess=False, backbone=None, spec=SPEC, trainable=True):
    network = LoadedNetwork(
        backbone=small_backbone() if backbone is None else backbone,
        spec=spec,
        name="spherenet4",
        path=Path("x.pt"),
        step=7,
        digest=DIGEST,
        training={},
        spec_stated=True,
        trainable=trainable,
    )
    return export_onnx(network, path, preprocess=preprocess)


@pytest.fixture(scope="module", params=[True, pytest.param(False, marks=pytest.mark.heavy)], ids=["images", "pixels"])
def exported(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "sub" / "x.onnx"
    return request.param, path, export(path, preprocess=request.param)


@pytest.mark.parametrize("batch", [1, 2, 17])
def test_embeddings_equal_those_of_the_embedder(exported, batch):
    preprocess, path, _ = exported
    images = np.random.default_rng(batch).integers(0, 256, (batch, 32, 32, 3), dtype=np.uint8)
    expected = Embedder(small_backbone(), mean=0.4, std=0.25)(images)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    if preprocess:
        (found,) = session.run(None, {"images": images})
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(found, expected, atol=2e-6)
    else:
        (found,) = session.run(None, {"pixels": normalise(torch.from_numpy(images), 0.4, 0.25).numpy()})
        np.testing.assert_allclose(found, expected, atol=2e-4)
        assert np.linalg.norm(found, axis=1).min() > 50
    assert (found.dtype, found.shape) == (np.float32, (batch, 512))


def test_the_graph_takes_rgb_whatever_the_network_takes(tmp_path):
    spec = Preprocessing(size=32, color="BGR", mean=(0.3, 0.4, 0.5), std=0.25)
    export(tmp_path / "x.onnx", preprocess=True, spec=spec)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    expected = Embedder(small_backbone(), mean=spec.mean, std=0.25, color="BGR")(images)
    (found,) = onnxruntime.InferenceSession(tmp_path / "x.onnx").run(None, {"images": images})
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=2e-6)


def test_a_graph_that_can_only_be_run_is_not_exported(tmp_path):
    with pytest.raises(CheckpointError) as error:
        export(tmp_path / "x.onnx", trainable=False)
    assert str(error.value) == (
        "x.pt: is a graph (spherenet4) that can be run, but not exported; name a checkpoint with weights"
    )


def test_the_graph_describes_its_input_and_output(exported):
    preprocess, path, _ = exported
    content = onnx.load(path)
    (graph_input,), (graph_output,) = content.graph.input, content.graph.output
    signatures = [
        (
            value.name,
            value.type.tensor_type.elem_type,
            [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim],
        )
        for value in (graph_input, graph_output)
    ]
    first = ("images", 2, ["batch", 32, 32, 3]) if preprocess else ("pixels", 1, ["batch", 3, 32, 32])
    assert signatures == [first, ("embeddings", 1, ["batch", 512])]
    assert content.doc_string == (
        "images uint8 (N, 32, 32, 3) RGB -> embeddings float32 (N, 512) of unit length"
        if preprocess
        else "pixels float32 (N, 3, 32, 32) RGB, (x / 255 - 0.4) / 0.25 -> embeddings float32 (N, 512), not normalised"
    )
    stated = {one.key: one.value for one in content.metadata_props}
    assert json.loads(stated.pop("preprocessing")) == SPEC.to_dict()
    assert stated == {"backbone": "spherenet4", "step": "7", "digest": DIGEST}


def test_it_is_one_file_without_local_paths(exported):
    _, path, _ = exported
    assert [entry.name for entry in path.parent.iterdir()] == ["x.onnx"]
    data = path.read_bytes()
    assert [word for word in (str(REPOSITORY), "site-packages", "stack_trace") if word.encode() in data] == []


def test_batches_of_1_3_and_64_are_compared(exported):
    preprocess, _, parities = exported
    assert [parity.batch for parity in parities] == [1, 3, 64]
    for parity in parities:
        assert parity.close
        assert parity.cosine > 0.999999
        assert parity.difference < 1e-5 * parity.scale
        assert (parity.scale < 1) == preprocess


@pytest.mark.parametrize("exported", [True, pytest.param(False, marks=pytest.mark.heavy)], indirect=True)
def test_the_same_network_gives_the_same_bytes(exported, tmp_path):
    preprocess, path, _ = exported
    export(tmp_path / "again.onnx", preprocess=preprocess)
    assert (tmp_path / "again.onnx").read_bytes() == path.read_bytes()


class Wrong(onnxruntime.InferenceSession):
    """A runtime with an error in one value of an embedding."""

    def run(self, names, inputs):
        (found,) = super().run(names, inputs)
        found[0, 0] += 1
        return [found]


def test_a_difference_is_an_error_and_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(onnxruntime, "InferenceSession", Wrong)
    with pytest.raises(ExportError) as error:
        export(tmp_path / "x.onnx")
    text = str(error.value)
    assert text.startswith(f"{tmp_path}/x.onnx: not written, ONNX Runtime differs from PyTorch (")
    assert "batch 1: largest difference 1.0e+00, lowest cosine 0.99" in text
    assert text.endswith("try other versions of onnxscript and onnxruntime")
    assert list(tmp_path.iterdir()) == []


def test_embeddings_that_are_not_finite_are_an_error(tmp_path):
    backbone = small_backbone()
    backbone[0].weight.data.fill_(float("nan"))
    with pytest.raises(
        ExportError, match="embeddings are not finite; the checkpoint is damaged or its training diverged"
    ):
        export(tmp_path / "x.onnx", backbone=backbone)
    assert list(tmp_path.iterdir()) == []


def test_weights_beyond_the_limit_of_protobuf_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(model.formats.export_onnx, "MAX_WEIGHT_BYTES", 1000)
    with pytest.raises(
        ExportError, match=r"x\.onnx: [\d,]+ bytes of weights, expected at most 1,000 in an ONNX file; choose"
    ):
        export(tmp_path / "x.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError) as error:
        export(tmp_path / "x.onnx")
    assert str(error.value) == f"{package} is not installed; run: pip install --editable '{REPOSITORY}[export]'"


@pytest.mark.parametrize(
    ("changes", "close"),
    [
        ({}, True),
        ({"difference": 2e-4}, False),
        ({"difference": 2e-4, "scale": 10.0}, True),
        ({"cosine": 0.9999}, False),
        ({"difference": float("nan")}, False),
        ({"cosine": float("nan")}, False),
    ],
)
def test_the_tolerance(changes, close):
    assert Parity(**{"batch": 1, "difference": 1e-6, "scale": 1.0, "cosine": 1.0, **changes}).close is close
