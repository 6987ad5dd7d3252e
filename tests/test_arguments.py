"""Arguments of a wrong type or shape: every public function says in one line what it found and what it expected."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.engine.runner import Engine
from benchmarks.engine.shard_set import SetEmbeddings
from benchmarks.report.page import write_report
from benchmarks.scoring.metrics import RocSamples, average_precision, fold_decisions, rank_gallery
from benchmarks.scoring.protocols import PairProtocol
from benchmarks.search.calibration import read_calibration
from benchmarks.search.likelihood import fit
from benchmarks.search.run import search_tables
from benchmarks.search.table import EmbeddingTable
from model.backbones import build_backbone
from model.embedder import Embedder
from model.formats.checkpoint import checkpoints
from model.formats.export_onnx import export_onnx
from model.formats.network import LoadedNetwork, load_network
from model.heads import build_head
from model.losses.center import CenterLoss
from model.losses.functional import cross_entropy, focal, hardest_triplet, octuplet
from model.options import OptionError
from model.training.config import TrainConfig
from model.training.loop import train
from model.training.start import find_resume, start_run
from model.training.state import new_run
from pipeline.align import fit_similarity, template_points, warp
from pipeline.build import options_for
from pipeline.degradation.presets import PRESETS, find_degradation
from pipeline.degradation.realistic import degrade_image
from pipeline.demo.generate import write_demo_data
from pipeline.demo.layouts import DemoOptions
from pipeline.load.sampler import LoaderState
from pipeline.prepare import Request, prepare
from pipeline.sources.catalog import find_source
from pipeline.spec import Preprocessing, SpecError
from pipeline.tables.landmark_reader import read_landmarks
from shards.arguments import check_whole, shown
from shards.finish import finish_set
from shards.index import ShardIndex, ShardReader
from shards.schema import Manifest
from shards.verify import verify
from shards.writer import Row, ShardWriter

PATH = "a path, as text or pathlib.Path"
IMAGE, MATRIX = np.zeros((4, 4, 3), np.uint8), np.eye(2, 3)
FEATURES, LABELS = torch.ones(4, 8), torch.arange(4)
SCORES, GENUINE, FOLDS = np.linspace(0, 1, 4), np.array([True, False] * 2), np.arange(4) % 2
SMALL = TrainConfig(backbone="spherenet4")
SET = {"fingerprint": "x", "source": "x", "identities": 1, "preprocessing": {}, "versions": {}}
STATE = {"seed": 0, "global_batch": 4, "views": 1, "index_digest": "x"}


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: list(verify(None)), f"root is None, expected {PATH}"),
        (lambda: Manifest.read(b"set"), f"root is b'set', expected {PATH}"),
        (lambda: ShardWriter(None, 0, "x"), f"root is None, expected {PATH}"),
        (lambda: ShardWriter("set", "0", "x"), "shard is '0', expected a whole number"),
        (lambda: ShardWriter("set", 0, None), "fingerprint is None, expected text"),
        (lambda: find_source(["folder"]), "source is ['folder'], expected one of vggface2"),
        (lambda: search_tables(None, "p.parquet", "m.parquet"), f"gallery is None, expected {PATH}"),
        (lambda: search_tables("g.parquet", "p.parquet", "m.parquet", top="3"), "top is '3', expected a whole number"),
        (
            lambda: search_tables("g.parquet", "p.parquet", "m.parquet", calibration="c.json"),
            "calibration is 'c.json', expected a Calibration, as read_calibration(path) returns, or None",
        ),
        (lambda: read_calibration(3), f"path is 3, expected {PATH}"),
        (lambda: EmbeddingTable(None), f"path is None, expected {PATH}"),
        (lambda: fit([0.1], GENUINE, LABELS), "scores is [0.1], expected an array of floats and shape (N,)"),
        (lambda: fit(SCORES, FOLDS, FOLDS), "genuine is a ndarray of int64 and shape (4,), expected an array of bool"),
        (
            lambda: fit(SCORES, GENUINE, FOLDS),
            "identities is a ndarray of int64 and shape (4,), expected an array of whole numbers and shape (4, 2)",
        ),
        (lambda: read_landmarks(None), "paths is None, expected a path, or several"),
        (lambda: read_landmarks([b"a.csv"]), f"paths is b'a.csv', expected {PATH}"),
        (lambda: load_network(None), f"path is None, expected {PATH}"),
        (lambda: export_onnx("a.pt", "a.onnx", preprocess=True), "network is 'a.pt', expected what load_network(path)"),
        (lambda: build_head("softmax", features=8, classes="4"), "classes is '4', expected a whole number"),
        (lambda: build_head("softmax", features=8.5, classes=4), "features is 8.5, expected a whole number"),
        (lambda: cross_entropy(FEATURES), "logits is a Tensor of float32 and shape (4, 8), expected ClassScores"),
        (lambda: focal(None), "logits is None, expected ClassScores, as a head returns"),
        (lambda: hardest_triplet(LABELS, LABELS), "features is a Tensor of int64 and shape (4,), expected a Tensor of"),
        (
            lambda: hardest_triplet(FEATURES, LABELS[:3]),
            "labels is a Tensor of int64 and shape (3,), expected a Tensor",
        ),
        (lambda: hardest_triplet(FEATURES, LABELS.float()), "labels is a Tensor of float32 and shape (4,), expected a"),
        (lambda: hardest_triplet(FEATURES, [0, 1, 2, 3]), "labels is [0, 1, 2, 3], expected a Tensor of int64 and"),
        (lambda: octuplet(FEATURES.numpy(), LABELS, 2), "features is a ndarray of float32 and shape (4, 8), expected"),
        (lambda: octuplet(FEATURES, LABELS, "2"), "views is '2', expected a whole number"),
        (lambda: build_head("arcface", features=8, classes=4)(FEATURES[0], LABELS), "features is a Tensor of float32"),
        (lambda: build_head("arcface", features=9, classes=4)(FEATURES, LABELS), "features is a Tensor of float32 and"),
        (lambda: build_head("arcface", features=8, classes=4)(FEATURES, None), "labels is None, expected a Tensor of"),
        (
            lambda: CenterLoss(features=9, classes=4, weight=1, alpha=1, group=None)(FEATURES, LABELS),
            "features is a Tensor of float32 and shape (4, 8), expected a Tensor of floats and shape (N, 9)",
        ),
        (
            lambda: new_run({"steps": 5}, classes=4, preprocessing={}),
            "config is {'steps': 5}, expected a TrainConfig, such as TrainConfig(steps=1000)",
        ),
        (lambda: new_run(TrainConfig(), classes=None, preprocessing={}), "classes is None, expected a whole number"),
        (
            lambda: new_run(TrainConfig(), classes=4, preprocessing=128),
            "preprocessing is 128, expected a Preprocessing",
        ),
        (
            lambda: start_run(
                None, run="x", resume="auto", classes=4, shards_spec=Preprocessing(), device="cpu", ranks=None
            ),
            "config is None, expected a TrainConfig",
        ),
        (lambda: find_resume(None, "auto"), f"run is None, expected {PATH}"),
        (lambda: find_resume("x", None), "resume is None, expected auto, never or the path of a checkpoint"),
        (lambda: train(None, None, "x"), "batches is None, expected batches, such as an open Loader"),
        (lambda: train([], None, "x"), "state is None, expected what new_run(config, ...) returns"),
        (lambda: template_points("seed", 112.0), "size is 112.0, expected a whole number"),
        (
            lambda: fit_similarity(np.ones((5, 2)), template_points("seed", 112)),
            "landmarks is a ndarray of float64 and",
        ),
        (lambda: fit_similarity([[1, 2]], template_points("seed", 112)), "landmarks is [[1, 2]], expected a (N, 5, 2)"),
        (
            lambda: fit_similarity(np.ones((1, 5, 2)), "seed"),
            "template is 'seed', expected a (P, 2) array, as template",
        ),
        (lambda: warp("a.jpg", MATRIX, 8), "image is 'a.jpg', expected a (H, W, 3) or (H, W) array of uint8"),
        (
            lambda: warp(IMAGE / 255, MATRIX, 8),
            "image is a ndarray of float64 and shape (4, 4, 3), expected a (H, W, 3)",
        ),
        (lambda: warp(IMAGE[:0], MATRIX, 8), "image is a ndarray of uint8 and shape (0, 4, 3), expected a (H, W, 3)"),
        (lambda: warp(IMAGE, MATRIX.tolist(), 8), "matrix is [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], expected a (2, 3)"),
        (
            lambda: degrade_image(IMAGE[0], 2, PRESETS["webcam"], key=(1, 2)),
            "image is a ndarray of uint8 and shape (4, 3)",
        ),
        (
            lambda: degrade_image(IMAGE, 2, "webcam", key=(1, 2)),
            "preset is 'webcam', expected a Preset, such as PRESETS",
        ),
        (lambda: degrade_image(IMAGE, 2, PRESETS["webcam"], key=1), "key is 1, expected two whole numbers"),
        (lambda: find_degradation(None), "text is None, expected a path"),
        (lambda: write_demo_data("x", identities="8", images=4, seed=0), "identities is '8', expected a whole number"),
        (
            lambda: write_demo_data("x", identities=8, images=4, seed=0, layouts="LFW"),
            "layouts is 'LFW', expected a list",
        ),
        (
            lambda: SetEmbeddings("a.rows", "data/shards", "0f"),
            "index is 'data/shards', expected a ShardIndex, such as",
        ),
        (lambda: warp(IMAGE, np.eye(3), 8), "matrix is a ndarray of float64 and shape (3, 3), expected a (2, 3) array"),
        (lambda: warp(IMAGE, MATRIX, 8.0), "size is 8.0, expected a whole number"),
        (lambda: Request(path=None), f"path is None, expected {PATH}"),
        (lambda: Request(path="a.jpg", down="8"), "down is '8', expected a whole number"),
        (lambda: Request(path="a.jpg", side=1.5), "side is 1.5, expected a whole number"),
        (
            lambda: Request(path="a.jpg", points=np.ones((5, 2))),
            "points is a ndarray of float64 and shape (5, 2), expec",
        ),
        (
            lambda: Request(path="a.jpg", points=((1, 2),)),
            "points is ((1, 2),), expected a tuple of five or four pairs",
        ),
        (lambda: Request(path="a.jpg", points_size=[5, 5]), "points_size is [5, 5], expected a tuple (width, height)"),
        (lambda: prepare("a.jpg", [], Preprocessing()), "data is 'a.jpg', expected the bytes of an image file"),
        (lambda: prepare(b"x", Request(path="a"), Preprocessing()), "requests is Request(path="),
        (lambda: prepare(b"x", ["a.jpg"], Preprocessing()), "requests is ['a.jpg'], expected a list of Requests"),
        (lambda: prepare(b"x", [], {}), "spec is {}, expected a Preprocessing"),
        (lambda: prepare(b"x", [], Preprocessing(), None), "max_pixels is None, expected a whole number"),
        (lambda: Preprocessing.from_dict(None), "record is None, expected the dict that to_dict() returns"),
        (lambda: LoaderState(**{**STATE, "epoch": "1"}), "epoch is '1', expected a whole number"),
        (lambda: LoaderState(**STATE).resumed([1]), "saved is [1], expected the dict that to_dict() returns"),
        (
            lambda: RocSamples([0.1, 0.2], GENUINE[:2]),
            "scores is [0.1, 0.2], expected an array of floats and shape (N,)",
        ),
        (lambda: RocSamples(SCORES, GENUINE[:3]), "genuine is a ndarray of bool and shape (3,), expected an array of"),
        (
            lambda: fold_decisions(SCORES, GENUINE.astype(int), FOLDS),
            "genuine is a ndarray of int64 and shape (4,), ex",
        ),
        (
            lambda: fold_decisions(SCORES, GENUINE, FOLDS / 2),
            "folds is a ndarray of float64 and shape (4,), expected an",
        ),
        (
            lambda: rank_gallery(np.eye(4), FOLDS, np.eye(3), FOLDS[:3]),
            "probes is a ndarray of float64 and shape (4, 4)",
        ),
        (
            lambda: rank_gallery(np.eye(4), FOLDS, np.eye(4), SCORES),
            "gallery_ids is a ndarray of float64 and shape (4,)",
        ),
        (lambda: rank_gallery(np.eye(4), FOLDS, np.eye(4)[:0], FOLDS[:0]), "gallery is a ndarray of float64 and shape"),
        (lambda: RocSamples(SCORES, GENUINE).curve([1]), "weights is [1], expected an array of numbers and shape (4,)"),
        (lambda: list(verify("set", full="yes")), "full is 'yes', expected True or False"),
        (lambda: list(verify("set", on_shard=None)), "on_shard is None, expected a function without arguments"),
        (lambda: finish_set("set", [None], **SET), "records is [None], expected a list of done records"),
        (
            lambda: focal(build_head("softmax", features=8, classes=4)(FEATURES, LABELS), "2"),
            "gamma is '2', expected a",
        ),
        (lambda: hardest_triplet(FEATURES, LABELS, None), "margin is None, expected a finite number"),
        (lambda: octuplet(FEATURES, LABELS, 2, float("nan")), "margin is nan, expected a finite number"),
        (
            lambda: CenterLoss(features="8", classes=4, weight=1, alpha=1, group=None),
            "features is '8', expected a whole",
        ),
        (
            lambda: CenterLoss(features=8, classes=4, weight="1", alpha=1, group=None),
            "weight is '1', expected a finite",
        ),
        (
            lambda: build_head("softmax", features=8, classes=4, group=2),
            "group is 2, expected a process group of PyTorch",
        ),
        (
            lambda: new_run(SMALL, classes=4, preprocessing={}, ranks=2),
            "ranks is 2, expected Ranks, or None for a single",
        ),
        (
            lambda: new_run(SMALL, classes=4, preprocessing={}, weights="a.pt"),
            "weights is 'a.pt', expected the state dict",
        ),
        (
            lambda: new_run(SMALL, classes=4, preprocessing={}, trained_on={}),
            "trained_on is {}, expected a Preprocessing",
        ),
        (
            lambda: new_run(SMALL, classes=4, preprocessing={}, device=None),
            "device is None, expected cpu, cuda or cuda:N",
        ),
        (
            lambda: options_for("folder", root="x", aligned=5),
            "aligned is 5, expected the name of a template, or a path",
        ),
        (lambda: average_precision([0.5], np.array([0.1])), "mates is [0.5], expected a (N,) array"),
        (lambda: checkpoints(None), f"run is None, expected {PATH}"),
        (lambda: write_report([], "report"), "results is [], expected a list of what run(...) returns"),
        (lambda: write_report(None, "report"), "results is None, expected a list of what run(...) returns"),
    ],
)
def test_an_argument_of_a_wrong_type_says_what_was_expected(call, says):
    with pytest.raises(TypeError) as error:
        call()
    message = str(error.value)
    assert message.startswith(says)
    assert ", expected " in message
    assert len(message.splitlines()) == 1
    assert len(message) < 250


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda: template_points("x", 112), ValueError, "template is 'x', expected one of seed, arcface"),
        (lambda: template_points(None, 112), ValueError, "template is None, expected one of seed, arcface"),
        (lambda: template_points("seed", 0), ValueError, "size is 0, expected at least 1"),
        (lambda: Request(path="a.jpg", down=0), ValueError, "down is 0, expected at least 1"),
        (lambda: octuplet(FEATURES, LABELS, 1), ValueError, "views is 1, expected at least 2"),
        (lambda: octuplet(FEATURES, LABELS, 3), ValueError, "4 images of 3 views, expected a multiple of 3"),
        (
            lambda: build_head(["softmax"], features=8, classes=4),
            OptionError,
            "head ['softmax'] is unknown; choose from",
        ),
        (lambda: build_backbone(["ir50"]), OptionError, "backbone ['ir50'] is unknown; choose from"),
        (lambda: build_backbone("ir50", image_size="112"), OptionError, "ir50 cannot take images of '112' px; choose"),
        (
            lambda: build_backbone("ir50", image_size=np.zeros((9, 9))),
            OptionError,
            "ir50 cannot take images of a ndarray",
        ),
        (
            lambda: TrainConfig(lr=np.zeros((9, 9))),
            OptionError,
            "train: lr is a ndarray of float64 and shape (9, 9), exp",
        ),
        (
            lambda: TrainConfig(precision=np.zeros((9, 9))),
            OptionError,
            "train: precision is a ndarray of float64 and sh",
        ),
        (
            lambda: new_run(SMALL, classes=4, preprocessing={}, device="gpu"),
            ValueError,
            "device is 'gpu', expected cpu,",
        ),
        (
            lambda: warp(IMAGE, np.zeros((2, 3)), 8),
            ValueError,
            "matrix is [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], expected",
        ),
        (
            lambda: degrade_image(IMAGE, 0, PRESETS["webcam"], key=(1, 2)),
            ValueError,
            "size is 0, expected at least 1",
        ),
        (
            lambda: DemoOptions(identities=1, images=2, seed=0),
            ValueError,
            "identities is 1, expected at least 2",
        ),
        (lambda: Preprocessing(size="128"), SpecError, "preprocessing spec: size is '128', expected int"),
        (lambda: Preprocessing(size=True), SpecError, "preprocessing spec: size is True, expected int"),
        (
            lambda: Preprocessing(mean=(0.5,) * 2),
            SpecError,
            "preprocessing spec: mean is (0.5, 0.5), expected float, or three",
        ),
        (lambda: Preprocessing(template=None), SpecError, "preprocessing spec: template is None, expected str"),
    ],
)
def test_an_argument_of_a_wrong_value_says_what_was_expected(call, kind, says):
    with pytest.raises(kind) as error:
        call()
    assert str(error.value).startswith(says)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.no_gpu
def test_a_gpu_that_is_not_there_is_said():
    for call in (
        lambda: new_run(SMALL, classes=4, preprocessing={}, device="cuda"),
        lambda: Embedder(torch.nn.Identity(), device="cuda:1"),
    ):
        with pytest.raises(ValueError, match=r"^device is 'cuda(:1)?', but PyTorch finds no GPU; use cpu$"):
            call()


def test_images_of_a_size_that_the_network_does_not_take_are_told_as_such():
    embed = Embedder(build_backbone("spherenet4", image_size=32))
    with pytest.raises(ValueError, match=r"^images have 64 px, which the network does not take: mat1 and mat2 shapes"):
        embed(np.zeros((2, 64, 64, 3), np.uint8))


def test_an_embedder_takes_images_that_are_read_only_and_says_that_its_backbone_is_in_training_mode(recwarn):
    backbone = build_backbone("spherenet4", image_size=32)
    embed, images = Embedder(backbone), np.zeros((2, 32, 32, 3), np.uint8)
    assert np.array_equal(embed(np.frombuffer(images.tobytes(), np.uint8).reshape(images.shape)), embed(images))
    assert not recwarn.list  # PyTorch warns of arrays that are mapped from a file
    backbone.train()
    with pytest.raises(RuntimeError, match=r"^the backbone is in training mode: call its eval\(\) before"):
        embed(images)


def test_values_of_the_api_are_shown_in_one_short_line(shard_set):
    """A notebook prints the last value of a cell."""
    index, state = ShardIndex(shard_set), new_run(SMALL, classes=4, preprocessing={"size": 32})
    backbone, rows = state.learner.backbone, np.zeros((1, 2), int)
    network = LoadedNetwork(backbone, Preprocessing(size=32), "spherenet4", Path("a.pt"), 5, "0f", {}, spec_stated=True)
    facts = {"name": "mine", "title": "Mine", "root": Path("faces"), "main": "auc", "published_counts": {}}
    pairs = PairProtocol(
        **facts,
        requests=[Request(path="a.jpg")],
        members={"{}": rows},
        identities=rows,
        genuine=FOLDS == 0,
        folds=FOLDS,
    )
    values = (state, network, Embedder(backbone), ShardReader(index), pairs, Engine(embed=Embedder(backbone)))
    assert [repr(value) for value in values[:-1]] == [
        "TrainState(TrainConfig(backbone='spherenet4'), 4 classes)",
        "LoadedNetwork('a.pt': spherenet4, step 5, 32 px, digest 0f)",
        "Embedder(Sequential, device='cpu', mean=0.5, std=0.5, color='RGB', flip='none')",
        f"ShardReader({index!r})",
        "PairProtocol(mine, 'faces': 4 pairs, 2 genuine, 2 folds)",
    ]
    assert len(repr(values[-1]).splitlines()) == 1


def test_numbers_of_numpy_and_paths_as_text_are_taken():
    spec = Preprocessing(size=np.int64(112), std=np.float32(0.25))
    assert spec == Preprocessing(size=112, std=0.25)
    assert {name: type(value) for name, value in spec.to_dict().items()} == {
        name: type(value) for name, value in Preprocessing().to_dict().items()
    }
    assert Request(path="a.jpg", down=np.int32(8)) == Request(path=Path("a.jpg"), down=8)
    assert LoaderState(**{**STATE, "step": np.int64(1)}).step == 1
    config = TrainConfig(batch_size=np.int64(4), lr=np.float32(0.25))
    assert config == TrainConfig(batch_size=4, lr=0.25)
    assert type(config.lr) is float


def test_a_writer_outside_its_block_says_so(tmp_path):
    row = Row(key="n1/0001", identity="n1", label=0, status="unreadable-image")
    writer = ShardWriter(str(tmp_path), 0, "x")
    with pytest.raises(RuntimeError, match=r"^the writer is closed: write in its with block"):
        writer.add(row)
    with writer:
        for wrong in ((None,), (row, "jpeg"), (row, np.zeros(4, np.uint8))):
            with pytest.raises(TypeError, match=r"^(row|jpeg) is .*, expected "):
                writer.add(*wrong)
        writer.add(row)
        writer.commit()
    for call in (lambda: writer.add(row), writer.commit):
        with pytest.raises(RuntimeError, match=r"^the writer is closed: write in its with block"):
            call()


def test_values_are_shown_in_one_short_line():
    assert shown(torch.zeros(2, 3)) == "a Tensor of float32 and shape (2, 3)"
    assert shown(torch.nn.Linear(2, 3)) == "Linear(in_features=2, out_features=3, bias=True)"
    assert shown(np.float32(0.5)) == "np.float32(0.5)"
    assert shown("a\nb") == r"'a\nb'"
    for long in (
        torch.nn.Sequential(*(torch.nn.ReLU() for _ in range(99))),
        "x" * 10**6,
        b"x" * 10**6,
        [[0] * 99] * 99,
    ):
        assert len(shown(long)) < 150
        assert len(shown(long).splitlines()) == 1


def test_bounds_of_whole_numbers():
    assert check_whole("n", np.uint8(3), 3, 3) == 3
    with pytest.raises(ValueError, match=r"^n is 2, expected at least 3 and at most 4$"):
        check_whole("n", 2, 3, 4)
    with pytest.raises(ValueError, match=r"^n is 5, expected at most 4$"):
        check_whole("n", 5, None, 4)
    with pytest.raises(TypeError, match=r"^n is np\.True_, expected a whole number$"):
        check_whole("n", np.True_)
