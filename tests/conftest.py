"""Settings of the test run, and the generated faces, shard sets and stores that several packages test with."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import hypothesis
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import cli
from benchmarks.scoring import intervals
from model.backbones import spherenet
from pipeline.build import build
from pipeline.demo import render
from pipeline.demo.faces import Conditions, Identity
from pipeline.demo.painter import paint
from pipeline.tables.landmark_table import HEADER
from tests.networks import NARROW
from tests.pages import CHROMIUM
from tests.shard_sets import build_options

IDENTITIES, IMAGES = 9, 5
paint_photo = render._render_photo
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")
torch.set_num_threads(1)  # the tensors of tests are small, and two workers share the machine


def pytest_configure():
    """Tests interrupt processes, which ``&`` or ``nohup`` has told us, and them, to ignore."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What exists before the first test stays: Python need not search it for garbage, a third of a second each time.

    Tests import more libraries, so it also searches less often.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        gc.enable()


@pytest.fixture(autouse=True)
def _seeded():
    """Random tensors are the same in every run: a test fails always or never."""
    torch.default_generator.manual_seed(0)  # torch.manual_seed takes a millisecond, for the devices that are not there


@pytest.fixture(autouse=True, scope="session")
def _no_wait_for_the_disk():
    """Files of this process are not synced, which takes milliseconds each; tests of durability look at the calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(os, "sync", lambda: None)
        yield


@pytest.fixture(autouse=True, scope="session")
def _few_resamples():
    """Intervals of this process are of 40 resamples: few tests look at their bounds, see ``all_resamples``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals.resamples, "__defaults__", (40, 0))
        yield


@pytest.fixture(autouse=True, scope="session")
def _painted_once():
    """Photos of generated people are painted by this process, and each once: many tests use the same few people."""

    @functools.cache
    def painted(seed, person, number):
        return paint_photo(Identity(np.random.default_rng([seed, person])), person, number, seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.demo.generate.MIN_PHOTOS_FOR_POOL", 1_000_000)
        patch.setattr(render, "_render_photo", lambda _, person, number, seed: painted(seed, person, number))
        yield


@pytest.fixture
def all_painted(monkeypatch):
    """Photos are painted as outside of tests."""
    monkeypatch.setattr(render, "_render_photo", paint_photo)


@pytest.fixture
def all_resamples(monkeypatch):
    """Intervals have as many resamples as outside of tests."""
    monkeypatch.setattr(intervals.resamples, "__defaults__", (intervals.ROUNDS, 0))


@pytest.fixture
def narrow(monkeypatch):
    """SphereNets of this process have an eighth of their channels: for tests to which the network does not matter."""
    monkeypatch.setattr(spherenet, "WIDTHS", NARROW)


@pytest.fixture
def no_drawings(monkeypatch):
    """Reports of this process are written without their figures, which take most of the time."""
    files = {"png": b"\x89PNG", "svg": b"<svg/>", "pdf": b"%PDF"}
    for module in ("figures", "networks"):
        monkeypatch.setattr(f"benchmarks.report.{module}.drawing", lambda _: files)


def pytest_collection_modifyitems(config, items):
    """Tests of a GPU, of there being none, of a browser or of namespaces are left out where they do not apply."""
    wrong = {"no_gpu" if torch.cuda.is_available() else "gpu"} | (set() if CHROMIUM else {"browser"})
    if any(item.get_closest_marker("namespaces") for item in items):
        from tests.hosts import possible

        wrong |= set() if possible() else {"namespaces"}
    left_out = [item for item in items if wrong & {marker.name for marker in item.iter_markers()}]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a command in this process, with ``$LRFR_DATA`` and the working directory in the test's folder.

    Returns a ``CompletedProcess`` (returncode, stdout, stderr). An unexpected exception fails the test.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LRFR_DATA", str(tmp_path))

    def runner(*words):
        result = CliRunner().invoke(cli.main, list(map(str, words)), prog_name="cli.py")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return subprocess.CompletedProcess(words, result.exit_code, result.stdout, result.stderr)

    return runner


@pytest.fixture
def stop_reading(monkeypatch):
    """A function after whose call nobody reads stderr any more, as when Ctrl-C has ended the ``tee`` behind a pipe."""

    def stop():
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 2)
        os.close(writer)
        monkeypatch.setattr(sys, "stderr", stream)

    stderr = os.dup(2)
    with contextlib.suppress(BrokenPipeError), open(2, "w", closefd=False, buffering=1) as stream:
        yield stop
    os.dup2(stderr, 2)
    os.close(stderr)


@pytest.fixture(scope="session")
def golden():
    """Loads a file of tests/golden."""
    return lambda name: np.load(Path(__file__).parent / "golden" / f"{name}.npz", allow_pickle=False)


@pytest.fixture(scope="session")
def painted():
    """(image RGB, landmarks) of generated faces, by identity."""
    faces = {}
    for person in range(IDENTITIES):
        who = Identity(np.random.default_rng([7, person]))
        shots = []
        for image in range(IMAGES):
            rng = np.random.default_rng([7, person, image])
            shots.append(paint(who, Conditions(rng), width=120, height=150, rng=rng))
        faces[f"n{person + 1:06d}"] = shots
    return faces


@pytest.fixture(scope="session")
def _vggface2(tmp_path_factory, painted):
    root = tmp_path_factory.mktemp("faces") / "VGGFace2"
    rows = [",".join(HEADER)]
    for identity, shots in painted.items():
        for image, (pixels, landmarks) in enumerate(shots):
            path = root / "train" / identity / f"{image + 1:04d}_01.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels[..., ::-1])
            rows.append(f'"{identity}/{image + 1:04d}_01",' + ",".join(f"{value:.3f}" for value in landmarks.ravel()))
    (root / "bb_landmark").mkdir()
    (root / "bb_landmark" / "loose_landmark_train.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture
def vggface2(_vggface2, tmp_path):
    """A VGGFace2 folder of generated faces, a copy that a test may damage."""
    return Path(shutil.copytree(_vggface2, tmp_path / "VGGFace2"))


@pytest.fixture(scope="session")
def _shard_set(_vggface2, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards") / "set"
    build(build_options(_vggface2, out))
    return out


@pytest.fixture
def shard_set(_shard_set, tmp_path):
    """A finished shard set of 45 images in 4 shards, a copy that a test may damage."""
    return Path(shutil.copytree(_shard_set, tmp_path / "shards"))


@pytest.fixture(scope="session")
def _object_store():
    from tests.object_store import ObjectStore  # imports moto, which takes seconds

    server = ObjectStore()
    yield server
    server.close()


@pytest.fixture
def object_store(_object_store, monkeypatch):
    """An S3 server with an empty bucket ``faces``, which the environment names; pauses between tries are short."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "ENDPOINT_URL": _object_store.url,
        "ACCESS_KEY_ID": "key",
        "SECRET_ACCESS_KEY": "secret",
        "EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr("shards.attempts.MAX_WAIT_S", 0.01)
    monkeypatch.setattr("shards.attempts._reported", set())
    _object_store.reset()
    return _object_store


@pytest.fixture(scope="session")
def _many_shards(_vggface2, tmp_path_factory):
    out = tmp_path_factory.mktemp("shards") / "many"
    build(build_options(_vggface2, out, images_per_shard=4))
    return out


@pytest.fixture
def stored_shards(_many_shards, object_store):
    """A set of 45 images in 12 shards, which is at s3://faces/sets/small, too; not to be damaged."""
    object_store.copy("sets/small", _many_shards)
    return _many_shards
