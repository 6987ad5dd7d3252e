"""Settings of the process: blocks of two threads that overlap leave them as they were."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import threading
import types
import warnings

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.report.style import font_settings
from model.embedder import Embedder
from model.formats.checkpoint import read_checkpoint
from model.formats.export_onnx import export_onnx, no_log
from model.formats.graphs.function import current_folder_importable
from model.formats.graphs.library import quiet_transformers
from model.formats.network import LoadedNetwork
from pipeline.degradation.realistic import no_cudnn
from pipeline.executors import hidden_main_module
from pipeline.landmarks.networks import no_stderr
from pipeline.opencv import quiet
from pipeline.ray_local import quiet_ray
from pipeline.torch_threads import one_thread
from shards.process_setting import ignored_warnings
from tests.networks import SMALL, small_backbone


class Log:
    """The settings of transformers, which is not installed."""

    def __init__(self):
        self.verbosity, self.bars = 20, True

    get_verbosity = lambda self: self.verbosity  # noqa: E731
    is_progress_bar_enabled = lambda self: self.bars  # noqa: E731

    def set_verbosity(self, number):
        self.verbosity = number

    def set_verbosity_error(self):
        self.verbosity = 40

    def disable_progress_bar(self):
        self.bars = False

    def enable_progress_bar(self):
        self.bars = True


def settings():
    return {
        "warnings": list(warnings.filters),
        "log": logging.root.manager.disable,
        "main": sys.modules["__main__"],
        "stderr": (os.fstat(2).st_dev, os.fstat(2).st_ino),
        "cudnn": torch.backends.cudnn.enabled,
        "fonts": {name: mpl.rcParams[name] for name in ("svg.fonttype", "svg.hashsalt", "pdf.fonttype")},
        "path": list(sys.path),
        "ray": (logging.getLogger("ray").level, sys.modules["ray._private.worker"]._worker_logs_enabled),
        "transformers": vars(sys.modules["transformers"].utils.logging).copy(),
    }


BLOCKS = {
    "warnings": ignored_warnings,
    "log": lambda: no_log,
    "main": lambda: hidden_main_module,
    "stderr": lambda: no_stderr,
    "cudnn": lambda: no_cudnn,
    "fonts": lambda: font_settings,
    "path": current_folder_importable,
    "transformers": lambda: quiet_transformers,
    "ray": lambda: quiet_ray,
}


@pytest.mark.parametrize(
    ("name", "blocks"),
    [*((name, [block, block]) for name, block in BLOCKS.items()), ("warnings", [lambda: quiet, ignored_warnings])],
)
def test_blocks_that_overlap_restore_the_setting_when_the_last_one_ends(name, blocks, monkeypatch):
    """One thread can enter and leave the blocks as two would."""
    library = types.SimpleNamespace(utils=types.SimpleNamespace(logging=Log()))
    monkeypatch.setitem(sys.modules, "transformers", library)
    monkeypatch.setitem(sys.modules, "ray._private.worker", types.SimpleNamespace(_worker_logs_enabled=True))
    before = settings()
    stacks = [contextlib.ExitStack() for _ in blocks]
    for stack, block in zip(stacks, blocks, strict=True):
        stack.enter_context(block())
    for stack in stacks:
        changed = settings()
        assert [key for key in before if changed[key] != before[key]] == [name]
        stack.close()
    assert settings() == before


def test_ignored_warnings_leave_the_filters_of_others():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("ignore")
        own = list(warnings.filters)
        with ignored_warnings():
            pass
        assert warnings.filters == own  # which has an equal entry
        warnings.simplefilter("always")
        with ignored_warnings():
            warnings.warn("a", stacklevel=1)
        with ignored_warnings("some.module"):
            warnings.warn("b", stacklevel=1)
            warnings.warn_explicit("c", UserWarning, "x.py", 1, module="some.module.below")
        warnings.warn_explicit("d", UserWarning, "x.py", 1, module="some.module.below")
    assert [str(one.message) for one in seen] == ["b", "d"]


def test_filters_that_another_thread_saves_and_restores_do_not_keep_ours():
    before = list(warnings.filters)
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        second.enter_context(ignored_warnings())
        first.enter_context(warnings.catch_warnings())
        second.close()
        assert warnings.filters == before
        first.close()
        assert warnings.filters == before
        first.enter_context(warnings.catch_warnings())
        second.enter_context(ignored_warnings())
        first.close()
        second.close()
        assert warnings.filters == before


def test_threads_that_embed_and_degrade_at_once_leave_the_threads_of_pytorch():
    """The degrading thread is new, and would take over and restore what the embedder's workers have set."""
    started, may_end = threading.Event(), threading.Event()

    class Network(nn.Module):
        def forward(self, pixels):
            started.set()
            may_end.wait()
            return pixels.flatten(1)

    def embed():
        Embedder(Network())(np.zeros((8, 4, 4, 3), np.uint8))
        found.append(torch.get_num_threads())

    def degrade():
        with one_thread:
            may_end.set()
            embedding.join()

    found, before = [], torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        embedding, degrading = threading.Thread(target=embed), threading.Thread(target=degrade)
        embedding.start()
        started.wait()
        degrading.start()
        degrading.join()
        fresh = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        fresh.start()
        fresh.join()
        assert found == [3, 3]
    finally:
        torch.set_num_threads(before)


def read_checkpoint_with_objects(folder):
    path = folder / "a.pt"
    if not path.exists():
        torch.save({"weight": torch.zeros(3), "args": argparse.Namespace(lr=0.1)}, path)
    assert sorted(read_checkpoint(path, skip_objects=True)) == ["args", "weight"]


def failing_export(*given, **options):
    raise ZeroDivisionError


def export_small_network(folder):
    network = LoadedNetwork(small_backbone(), SMALL, "spherenet4", folder, None, "0" * 32)
    with pytest.raises(ZeroDivisionError):
        export_onnx(network, folder / "x.onnx", preprocess=True)


@pytest.mark.parametrize(
    ("module", "function", "call"),
    [(torch, torch.load, read_checkpoint_with_objects), (torch.onnx, failing_export, export_small_network)],
)
def test_functions_of_pytorch_that_change_the_process_run_in_one_thread_at_a_time(
    module, function, call, tmp_path, monkeypatch
):
    """Two exports at once fail, and so does reading objects that PyTorch skips, when another thread ends doing so."""
    second_has_begun = threading.Event()

    def waiting(*given, **options):
        if threading.current_thread() is first:
            second.start()
            together.append(second_has_begun.wait(0.2))
        else:
            second_has_begun.set()
        return function(*given, **options)

    def run():
        call(tmp_path)
        ended.append(True)

    together, ended = [], []
    first, second = threading.Thread(target=run), threading.Thread(target=run)
    monkeypatch.setattr(module, function.__name__.removeprefix("failing_"), waiting)
    first.start()
    first.join()
    second.join()
    assert (together, ended) == ([False], [True, True])
