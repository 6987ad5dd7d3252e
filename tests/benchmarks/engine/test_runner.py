"""The engine and ``run``: order, batches, unusable images, partial results."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from benchmarks import read_benchmark
from benchmarks.datasets.lfw import read_lfw
from benchmarks.engine.runner import Engine, run
from benchmarks.errors import ProtocolError
from pipeline.prepare import Request, prepare
from pipeline.progress import Progress
from pipeline.spec import Preprocessing
from tests.benchmarks.runs import Recorder, score


@pytest.fixture
def root(demo):
    return demo("QMUL-SurvFace")


def images(root):
    return sorted((root / "Face_Verification_Test_Set" / "verification_images").iterdir())


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_vectors_are_in_the_order_of_requests_for_any_batch_size(root, batch_size):
    requests = [Request(path=path, down=down) for down in (None, 8) for path in images(root)]
    found = Engine(embed=Recorder(), batch_size=batch_size).embed_all(requests, Progress("test", len(requests)))
    assert found.valid.all()
    assert (found.computed, found.cached, found.missing) == (len(requests), 0, {})
    for request, vector in zip(requests, found.vectors, strict=True):
        (seen,) = prepare(request.path.read_bytes(), [request], Preprocessing())
        np.testing.assert_allclose(vector, Recorder()(seen[None])[0], rtol=1e-6)


def test_batches_have_the_given_size(root):
    sizes = []

    def embed(batch):
        sizes.append(len(batch))
        return Recorder()(batch)

    score("qmul", root, embed, batch_size=5)
    assert set(sizes[:-1]) == {5}
    assert 1 <= sizes[-1] <= 5


class Queue:
    """Embeds as a GPU does: a batch is started, and computed when its vectors are fetched."""

    def __init__(self):
        self.events = []

    def __call__(self, batch):
        raise AssertionError

    def start(self, batch):
        number = len([event for event in self.events if event[0] == "start"])
        self.events.append(("start", number))

        def fetch():
            self.events.append(("fetch", number))
            return Recorder()(batch)

        return fetch


def test_a_batch_is_started_before_the_vectors_of_the_one_before_are_fetched(root):
    requests = [Request(path=path) for path in images(root)]
    plain = Engine(embed=Recorder(), batch_size=3).embed_all(requests, Progress("test", len(requests)))
    queue = Queue()
    found = Engine(embed=queue, batch_size=3).embed_all(requests, Progress("test", len(requests)))
    assert np.array_equal(found.vectors, plain.vectors)
    assert found.computed == len(requests)
    batches = -(-len(requests) // 3)
    expected = [("start", 0)]
    for number in range(1, batches):
        expected += [("start", number), ("fetch", number - 1)]
    assert queue.events == [*expected, ("fetch", batches - 1)]
    assert batches > 2


def test_unusable_images_are_listed(root, capsys):
    damaged = images(root)[:3]
    damaged[0].unlink()
    damaged[1].write_bytes(b"nonsense")
    damaged[2].write_bytes(damaged[2].read_bytes()[:200])
    with pytest.raises(ProtocolError) as error:
        score("qmul", root)
    assert str(error.value) == (
        "bench qmul: 3 unusable images, listed above; restore the images from the data set's archive;"
        " or pass --allow-missing to score without them"
    )
    listed = capsys.readouterr().err
    assert f"{damaged[0]}: not found" in listed
    assert f"{damaged[1]}: cannot be decoded (8 bytes, not an image or damaged)" in listed
    assert f"{damaged[2]}: damaged JPEG (200 bytes)" in listed


def test_a_pipe_in_place_of_an_image_does_not_block(root, capsys):
    lost = images(root)[0]
    lost.unlink()
    os.mkfifo(lost)
    with pytest.raises(ProtocolError, match="bench qmul: 1 unusable image"):
        score("qmul", root)
    assert f"{lost}: cannot be read: not a regular file" in capsys.readouterr().err


def test_the_remedy_depends_on_the_problem(demo):
    root = demo("LFW")
    table = root / "LFW.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[1:]))
    remedy = (
        "correct the landmark table or name another one with --landmarks; or pass --allow-missing to score without them"
    )
    with pytest.raises(ProtocolError) as error:
        score("lfw", root)
    assert str(error.value) == f"bench lfw: 1 unusable image, listed above; {remedy}"
    read_lfw(root).requests[-1].path.unlink()
    with pytest.raises(ProtocolError) as error:
        score("lfw", root)
    assert str(error.value) == (
        f"bench lfw: 2 unusable images, listed above; restore the images from the data set's archive; {remedy}"
    )


def test_progress_counts_preparations(demo, capsys):
    count = score("lfw", demo("LFW")).counts["prepared"]
    assert f"bench lfw: {count}/{count} preparations [" in capsys.readouterr().err


def test_partial_results_leave_out_pairs_and_say_so(root):
    whole = score("qmul", root)
    lost = images(root)[0]
    lost.unlink()
    partial = score("qmul", root, allow_missing=True)
    record = partial.to_dict()
    assert record["partial"] is True
    assert record["missing"] == [{"path": str(lost), "reason": "not found"}]
    assert whole.to_dict()["partial"] is False
    kept = len(partial.settings["{}"].scores)
    assert kept + partial.counts["left_out"] == whole.counts["pairs"]
    assert partial.counts["left_out"] > 0


def test_too_few_images_are_an_error(root):
    for path in images(root):
        path.unlink()
    with pytest.raises(ProtocolError, match="bench qmul: accuracy: too few usable pairs"):
        score("qmul", root, allow_missing=True)


def test_embeddings_that_are_not_finite_are_an_error(root):
    with pytest.raises(ProtocolError, match="the network's embeddings are not finite"):
        score("qmul", root, lambda batch: np.full((len(batch), 4), np.nan, np.float32))


def test_a_network_trained_on_unaligned_images_is_scored_on_unaligned_benchmarks_only(demo):
    spec = Preprocessing.unaligned(mean=0.4)
    assert score("qmul", demo("QMUL-SurvFace"), spec=spec).preprocessing == spec
    recorder = Recorder()
    with pytest.raises(ProtocolError) as error:
        score("lfw", demo("LFW"), recorder, spec=spec)
    assert str(error.value) == (
        "bench lfw: aligns faces by landmarks, but x.pt was trained on unaligned images only (template none); score it"
        " on qmul, qmul-id or tinyface"
    )
    assert recorder.images == []


def test_an_unknown_benchmark_is_named_with_the_known_ones(demo):
    root = demo("QMUL-SurvFace").parent
    assert read_benchmark("qmul", str(root)).name == "qmul"
    with pytest.raises(
        ProtocolError, match=r"^unknown benchmark 'nope'; choose from lfw, xqlfw, scface, qmul, qmul-id"
    ):
        read_benchmark("nope", root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embed": "spherenet20"}, "Engine: embed is 'spherenet20', expected a function from (N, S, S, 3) uint8"),
        ({"spec": "arcface"}, "Engine: spec is 'arcface', expected a Preprocessing"),
        ({"cache": "cache"}, "Engine: cache is 'cache', expected an open EmbeddingCache or None"),
        ({"batch_size": 0}, "Engine: batch_size is 0, expected an int above 0"),
        ({"batch_size": True}, "Engine: batch_size is True, expected an int above 0"),
        ({"max_pixels": None}, "Engine: max_pixels is None, expected an int above 0"),
        ({"watch": "/faces"}, "Engine: watch is '/faces', expected a SourceWatch"),
        ({"embed": torch.ones(2, 3)}, "Engine: embed is a Tensor of float32 and shape (2, 3), expected a function"),
    ],
)
def test_an_engine_says_what_it_needs(changes, message):
    with pytest.raises(TypeError) as error:
        Engine(**{"embed": Recorder(), **changes})
    assert str(error.value).startswith(message)


def test_run_says_what_it_needs():
    with pytest.raises(
        TypeError, match=r"^run: protocol is 'lfw', expected what read_benchmark\(name, root\) returns$"
    ):
        run("lfw", Engine(embed=Recorder()), checkpoint={})


def test_run_needs_an_engine_and_a_dict(root):
    protocol = read_benchmark("qmul", root.parent)
    with pytest.raises(TypeError, match=r"^run: engine is None, expected an Engine, such as Engine\(embed="):
        run(protocol, None, checkpoint={})
    with pytest.raises(TypeError, match=r"^run: checkpoint is 'a\.pt', expected a dict of facts"):
        run(protocol, Engine(embed=Recorder()), checkpoint="a.pt")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("lfw", None), "root is None, expected a path, as text or pathlib.Path"),
        (("lfw", b"data"), "root is b'data', expected a path, as text or pathlib.Path"),
        ((["lfw"], "data"), "name is ['lfw'], expected one of lfw, xqlfw, scface, qmul, qmul-id, tinyface"),
        ((None, "data"), "name is None, expected one of lfw, xqlfw, scface, qmul, qmul-id, tinyface"),
    ],
)
def test_read_benchmark_says_what_it_needs(arguments, says):
    with pytest.raises(TypeError) as error:
        read_benchmark(*arguments)
    assert str(error.value) == says


OF_A_TENSOR = ": for a tensor, tensor.detach().float().cpu().numpy()"


@pytest.mark.parametrize(
    ("embed", "found"),
    [
        (lambda images: images[0], "a ndarray of uint8 and shape (128, 128, 3) for 3 images, expected (3, D) numbers"),
        (lambda images: np.ones((1, 4)), "a ndarray of float64 and shape (1, 4) for 3 images, expected (3, D) numbers"),
        (lambda images: np.ones((3, 0)), "a ndarray of float64 and shape (3, 0) for 3 images, expected (3, D) numbers"),
        (lambda images: None, "None for 3 images, expected (3, D) numbers"),
        (lambda images: [["a"], ["b"], ["c"]], "[['a'], ['b'], ['c']] for 3 images, expected (3, D) numbers"),
        (lambda images: [[1], [1, 2], [3]], f"[[1], [1, 2], [3]] for 3 images, expected (3, D) numbers{OF_A_TENSOR}"),
        (
            lambda images: torch.ones(3, 4, requires_grad=True),
            f"a Tensor of float32 and shape (3, 4) for 3 images, expected (3, D) numbers{OF_A_TENSOR}",
        ),
        (
            lambda images: torch.ones(3, 4, dtype=torch.bfloat16),
            f"a Tensor of bfloat16 and shape (3, 4) for 3 images, expected (3, D) numbers{OF_A_TENSOR}",
        ),
    ],
)
def test_what_is_no_vector_for_each_image_is_an_error(root, embed, found):
    requests = [Request(path=path) for path in images(root)[:3]]
    with pytest.raises(TypeError) as error:
        Engine(embed=embed).embed_all(requests, Progress("test", 3))
    assert str(error.value) == f"embed returned {found}"


def test_vectors_of_two_lengths_are_an_error(root):
    """The second batch replaced the vectors of the first by zeros."""
    requests = [Request(path=path) for path in images(root)[:4]]
    lengths = iter((4, 8))
    engine = Engine(embed=lambda batch: np.ones((len(batch), next(lengths))), batch_size=2)
    with pytest.raises(TypeError, match=r"^embeddings of 4 and of 8 numbers: a network has one length$"):
        engine.embed_all(requests, Progress("test", 4))


def test_a_tensor_is_as_good_as_an_array(root):
    requests = [Request(path=path) for path in images(root)[:3]]
    found = Engine(embed=lambda batch: torch.ones(len(batch), 4)).embed_all(requests, Progress("test", 3))
    np.testing.assert_array_equal(found.vectors, np.ones((3, 4)))
