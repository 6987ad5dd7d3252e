"""Data sets of generated faces for the benchmarks, and an embedder that needs no network."""

from __future__ import annotations

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from benchmarks import BENCHMARKS
from benchmarks.engine.runner import Engine, run
from pipeline.demo.generate import write_demo_data

FACTS = {
    "path": "x.pt",
    "step": 7,
    "backbone": "spherenet4",
    "digest": "00ff",
    "precision": "fp32",
    "device": "cpu",
}


@pytest.fixture(scope="session")
def _demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    write_demo_data(out, identities=16, images=4, seed=0)
    return out


@pytest.fixture
def demo(_demo, tmp_path):
    """``demo("LFW")``: a copy of a data set that a test may damage."""

    def copy(name):
        return Path(shutil.copytree(_demo / name, tmp_path / name, dirs_exist_ok=True))

    return copy


def bomb():
    """The head of a PNG that states 100,000 x 100,000 px."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


class Recorder:
    """Embeds by what an 8x8 thumbnail shows, and remembers what it was given."""

    def __init__(self):
        self.images = []

    def __call__(self, images):
        assert images.dtype == np.uint8
        self.images.extend(images)
        return (
            images.reshape(len(images), 8, 16, 8, 16, 3).mean((2, 4)).reshape(len(images), -1).astype(np.float32) - 128
        )


def score(name, root, embed=None, *, allow_missing=False, intervals=False, checkpoint=FACTS, landmarks=(), **engine):
    """Reads and scores a benchmark; intervals only where a test is about them."""
    protocol = BENCHMARKS[name].read(root, landmarks)
    engine = Engine(embed=embed or Recorder(), **engine)
    return run(protocol, engine, checkpoint=checkpoint, allow_missing=allow_missing, intervals=intervals)


def cosine(first, second):
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
