"""ONNX files of ours and of others: layout, type, size, batch; what cannot be used is one line."""

from __future__ import annotations

import json
import types

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from model.embedder import Embedder
from model.errors import CheckpointError
from model.formats.export_onnx import export_onnx
from model.formats.graphs.onnx_graph import open_session
from model.formats.network import load_network
from pipeline.named_specs import NAMED_SPECS
from pipeline.spec import Preprocessing
from tests.networks import noise, save_small

CELLS, NUMBERS = 4, 6
CUDA = "CUDAExecutionProvider"


def weight(seed=0):
    return np.random.default_rng(seed).standard_normal((CELLS * CELLS * 3, NUMBERS)).astype(np.float32)


def build(
    path,
    shape=("N", 3, 32, 32),
    dtype=TensorProto.FLOAT,
    *,
    nodes=(),
    inputs=(),
    outputs=("embedding",),
    initializers=(),
    domain="",
):
    """Writes a graph that averages CELLS x CELLS cells of an image and multiplies them with a matrix."""
    channels_last = shape[3] == 3
    graph = [helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT)]
    if channels_last:
        graph.append(helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]))
    sides = shape[1:3] if channels_last else shape[2:]
    cell = [side // CELLS if isinstance(side, int) else 8 for side in sides]
    pooled = helper.make_node(
        "AveragePool", ["planes" if channels_last else "floats"], ["cells"], kernel_shape=cell, strides=cell
    )
    graph += [pooled, helper.make_node("Flatten", ["cells"], ["flat"]), *nodes]
    graph.append(helper.make_node("MatMul", ["flat", "weight"], ["embedding"], domain=domain))
    model = helper.make_model(
        helper.make_graph(
            graph,
            "g",
            [helper.make_tensor_value_info("image", dtype, shape), *inputs],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            [numpy_helper.from_array(weight(), "weight"), *initializers],
        ),
        opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid(domain or "ai.onnx.ml", 1)],
        ir_version=9,
    )
    onnx.save(model, path)
    return path


def expected(images, spec):
    """What the graph gives, by NumPy."""
    pixels = images[..., ::-1] if spec.color == "BGR" else images
    pixels = (pixels / 255 - np.array(spec.mean)) / np.array(spec.std)
    n, side, _, _ = pixels.shape
    cell = side // CELLS
    means = pixels.reshape(n, CELLS, cell, CELLS, cell, 3).mean((2, 4))
    return means.transpose(0, 3, 1, 2).reshape(n, -1) @ weight()


def embedded(network, images):
    spec = network.spec
    return Embedder(network.backbone, mean=spec.mean, std=spec.std, color=spec.color)(images)


@pytest.mark.heavy
@pytest.mark.parametrize("preprocess", [True, False])
def test_our_own_export_is_its_checkpoint(tmp_path, preprocess):
    spec = Preprocessing(size=32, color="BGR", mean=(0.3, 0.4, 0.5), std=0.25)
    save_small(tmp_path / "x.pt", preprocessing=spec.to_dict())
    network = load_network(tmp_path / "x.pt")
    export_onnx(network, tmp_path / "x.onnx", preprocess=preprocess)
    found = load_network(tmp_path / "x.onnx")
    assert (found.spec, found.name, found.step, found.spec_stated) == (spec, "spherenet4", 7, True)
    assert (found.trainable, found.cached, found.embedding_size()) == (False, True, 512)
    assert found.digest != network.digest
    assert found.digest == load_network(tmp_path / "x.onnx").digest
    one, other = embedded(network, noise(32)), embedded(found, noise(32))
    if preprocess:
        one = one / np.linalg.norm(one, axis=1, keepdims=True)
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(one).max())
    if preprocess:  # whatever the user says, the graph gets the pixels that it expects
        inside = load_network(tmp_path / "x.onnx", Preprocessing(size=32, mean=0.1))
        assert "mean 0.1, not [0.3, 0.4, 0.5]" in inside.note
        np.testing.assert_allclose(embedded(inside, noise(32)), other, atol=1e-6)


@pytest.mark.parametrize("shape", [("N", 3, 32, 32), ("N", 32, 32, 3), (2, 3, 32, 32), (1, 32, 32, 3), (64, 3, 32, 32)])
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_layout_type_and_batch_are_read_from_the_graph(tmp_path, shape, dtype):
    network = load_network(build(tmp_path / "x.onnx", shape, dtype))
    assert (network.spec, network.spec_stated) == (NAMED_SPECS["insightface"].resized(32), False)
    assert (network.name, network.step, network.embedding_size()) == ("onnx", None, NUMBERS)
    rough = dtype == TensorProto.FLOAT16
    np.testing.assert_allclose(
        embedded(network, noise(32)), expected(noise(32), network.spec), atol=5e-3 if rough else 1e-5
    )


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_a_graph_of_uint8_gets_the_pixels_as_they_are(tmp_path, color):
    given = Preprocessing(template="arcface", size=32, color=color, mean=(0.1, 0.2, 0.3), std=0.7)
    network = load_network(build(tmp_path / "x.onnx", ("N", 32, 32, 3), TensorProto.UINT8), given)
    raw = Preprocessing(color=color, mean=0.0, std=1 / 255)
    np.testing.assert_allclose(embedded(network, noise(32)), expected(noise(32), raw), rtol=1e-4, atol=1e-2)


def test_a_preprocessing_is_given_by_name_at_the_size_of_the_graph(tmp_path):
    path = build(tmp_path / "x.onnx")
    network = load_network(path, NAMED_SPECS["adaface"])
    assert (network.spec, network.spec_stated, network.note) == (NAMED_SPECS["adaface"].resized(32), True, "")
    np.testing.assert_allclose(embedded(network, noise(32)), expected(noise(32), network.spec), atol=1e-5)
    assert network.digest != load_network(path).digest
    with pytest.raises(CheckpointError) as error:
        load_network(path, Preprocessing(size=64))
    assert str(error.value) == (f"{path}: takes (N, 3, 32, 32), but --preprocessing has size = 64; expected size = 32")
    open_sides = build(tmp_path / "y.onnx", ("N", 3, "H", "W"))
    assert load_network(open_sides, Preprocessing(size=32)).spec == Preprocessing(size=32)


def test_another_preprocessing_than_the_stated_one_is_a_warning(tmp_path):
    save_small(tmp_path / "x.pt")
    network = load_network(tmp_path / "x.pt", NAMED_SPECS["adaface"])
    assert network.spec == NAMED_SPECS["adaface"].resized(32)
    assert network.note == (
        f"warning: --preprocessing is not what {tmp_path}/x.pt states: template arcface, not seed; warp opencv-linear, not"
        " opencv-cubic; color BGR, not RGB; fit forward, not inverse"
    )
    assert load_network(tmp_path / "x.pt", Preprocessing()).note == ""


def test_the_output_that_is_an_embedding_is_found(tmp_path):
    norm = helper.make_node("ReduceL2", ["embedding", "axes"], ["norm"], keepdims=1)
    axes = numpy_helper.from_array(np.array([1]), "axes")
    path = build(tmp_path / "x.onnx", nodes=(), outputs=("embedding",))
    model = onnx.load(path)
    model.graph.node.append(norm)
    model.graph.initializer.append(axes)
    model.graph.output.insert(0, helper.make_tensor_value_info("norm", TensorProto.FLOAT, None))
    onnx.save(model, path)
    assert load_network(path).embedding_size() == NUMBERS


def hostile(path):
    """A name and a file for each kind of ONNX that is not a network."""
    value = helper.make_tensor_value_info
    build(path / "inputs.onnx", inputs=(value("other", TensorProto.FLOAT, ["N", 4]),))
    build(path / "outputs.onnx", outputs=("embedding", "flat"))
    build(path / "domain.onnx", domain="com.evil")
    build(path / "batch.onnx", (10**6, 3, 32, 32))
    build(path / "wide.onnx", ("N", 3, 32, 48))
    build(path / "huge.onnx", ("N", 3, 100000, 100000))
    build(path / "int.onnx", dtype=TensorProto.INT64)
    build(path / "unknown.onnx", ("N", 3, 32, 32), nodes=[helper.make_node("NoSuchOperator", ["flat"], ["x"])])
    large = numpy_helper.from_array(np.array([1 << 44]), "large")
    vast = [
        helper.make_node("ConstantOfShape", ["large"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"]),
    ]
    vast.append(helper.make_node("Add", ["flat", "sum"], ["added"]))
    build(path / "vast.onnx", nodes=vast, initializers=[large], outputs=("embedding", "added"))
    good = build(path / "good.onnx").read_bytes()
    (path / "cut.onnx").write_bytes(good[: len(good) // 2])
    (path / "empty.onnx").write_bytes(b"")
    (path / "text.onnx").write_text("version https://git-lfs.github.com/spec/v1\n")
    (path / "grey.onnx").write_bytes(build(path / "g.onnx", ("N", 3, 32, 32)).read_bytes())
    model = onnx.load(path / "grey.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight()[: CELLS * CELLS], "weight"))
    onnx.save(model, path / "grey.onnx")
    (path / "folder.onnx").mkdir()
    with open(path / "sparse.onnx", "wb") as stream:
        stream.truncate(1 << 33)
    bad = onnx.load(path / "good.onnx")
    helper.set_model_props(bad, {"preprocessing": "{", "digest": "x"})
    onnx.save(bad, path / "metadata.onnx")
    helper.set_model_props(bad, {"preprocessing": json.dumps(Preprocessing().to_dict()), "digest": "x"})
    onnx.save(bad, path / "size.onnx")
    bad.graph.initializer[0].raw_data = np.full_like(weight(), np.nan).tobytes()
    helper.set_model_props(bad, {})
    onnx.save(bad, path / "nan.onnx")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    hostile(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("inputs", "has 2 inputs (image (N, 3, 32, 32), other (N, 4)), expected one input (N, 3, S, S) or"),
        (
            "outputs",
            "2 of its outputs could be embeddings of 2 images (embedding (2, 6), flat (2, 48)), expected one of shape (N, D)",
        ),
        ("domain", "has operators of com.evil, which ONNX Runtime has not; export it without them"),
        ("batch", "takes 1,000,000 images of 32 px at a time, expected 1 to 65,536"),
        ("wide", "takes image (N, 3, 32, 48) of float: its images are not square, expected"),
        ("huge", "takes (N, 3, 100000, 100000), expected images of at most 1024 px"),
        ("int", "takes image (N, 3, 32, 32) of int64, expected one input"),
        ("grey", "takes image (N, 1, 32, 32) of float, expected one input"),
        ("unknown", "ONNX Runtime cannot open it ("),
        ("vast", "ONNX Runtime cannot "),
        ("cut", "damaged or not ONNX ("),
        ("empty", "ONNX"),
        ("text", "is a Git LFS pointer, not the file itself, which lrfr does not read; run: git lfs pull"),
        ("folder", "not a regular file; expected an ONNX file"),
        ("none", "not found; expected an ONNX file"),
        ("sparse", "8,589,934,592 bytes, expected at most 2,147,483,648 in an ONNX file"),
        ("metadata", "its metadata state no preprocessing (Expecting property name"),
        ("size", "takes 32 px, but its metadata state 128 px; export it again"),
        ("nan", "its output for a grey image is not finite; the file is damaged"),
    ],
)
def test_what_is_no_network_is_one_line(files, name, says):
    path = files / f"{name}.onnx"
    with pytest.raises(CheckpointError) as error:
        load_network(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert says in text
    assert len(text.splitlines()) == 1
    assert len(text) < len(str(path)) + 300


@pytest.mark.parametrize(
    ("location", "says"),
    [
        ("../secret.bin", "refused: its weights are in ../secret.bin, outside its folder"),
        ("/etc/passwd", "refused: its weights are in /etc/passwd, outside its folder"),
        ("link.bin", "refused: its weights are in link.bin, outside its folder"),
        ("none.bin", "its weights are in none.bin, which is not there; restore it"),
    ],
)
def test_weights_are_read_from_the_same_folder_only(tmp_path, location, says):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.bin").write_bytes(weight().tobytes())
    (tmp_path / "in" / "link.bin").symlink_to(tmp_path / "secret.bin")
    path = build(tmp_path / "in" / "x.onnx")
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError) as error:
        load_network(path)
    assert str(error.value) == f"{path}: {says}"


def test_weights_beside_the_file_are_read(tmp_path):
    path = build(tmp_path / "x.onnx")
    images = noise(32)
    plain = embedded(load_network(path), images)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="x.data", size_threshold=0)
    network = load_network(path)
    np.testing.assert_array_equal(embedded(network, images), plain)
    data = tmp_path / "x.data"
    data.write_bytes((np.frombuffer(data.read_bytes(), np.float32) + 1).tobytes())
    changed = load_network(path)
    assert not np.array_equal(embedded(changed, images), plain)
    assert changed.digest != network.digest  # it names the cache of embeddings


def test_what_can_only_be_run_is_neither_trained_nor_exported(tmp_path):
    path = build(tmp_path / "x.onnx")
    with pytest.raises(CheckpointError) as error:
        load_network(path).check_trainable("trained further")
    assert str(error.value) == (
        f"{path}: is a graph (onnx) that can be run, but not trained further; name a checkpoint with weights"
    )


def test_onnx_runtime_without_a_gpu_says_that_it_runs_on_the_cpu(tmp_path, capsys):
    path = build(tmp_path / "x.onnx")
    open_session(path, "cuda")
    assert capsys.readouterr().err == f"{path}: this ONNX Runtime has no CUDAExecutionProvider: it runs on the CPU\n"


@pytest.mark.parametrize(
    ("device", "loads", "asked"),
    [
        ("cuda", True, [(CUDA, {"device_id": 0}), "CPUExecutionProvider"]),
        ("cuda:3", True, [(CUDA, {"device_id": 3}), "CPUExecutionProvider"]),  # of the processes of torchrun
        ("cuda", False, [(CUDA, {"device_id": 0}), "CPUExecutionProvider"]),  # without the libraries of CUDA
        ("cpu", True, ["CPUExecutionProvider"]),
    ],
)
def test_the_gpu_of_onnx_runtime_is_that_of_the_process(tmp_path, capsys, monkeypatch, device, loads, asked):
    path = build(tmp_path / "x.onnx")
    found: list[object] = []

    def session(path, options, providers):
        found.extend(providers)
        names = [one if isinstance(one, str) else one[0] for one in providers]
        return types.SimpleNamespace(get_providers=lambda: names if loads else names[1:])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    open_session(path, device)
    assert found == asked
    assert ("it runs on the CPU" in capsys.readouterr().err) is not loads


def test_threads_are_those_of_pytorch(tmp_path):
    options = open_session(build(tmp_path / "x.onnx"), "cpu").get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (torch.get_num_threads(), 1)
