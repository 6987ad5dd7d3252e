"""Small runs of benchmarks, with embedders that are not networks."""

from __future__ import annotations

import dataclasses
import struct
import zlib

import numpy as np

from benchmarks import BENCHMARKS
from benchmarks.engine.runner import Engine, run
from benchmarks.scoring.results import write_json

FACTS = {
    "path": "x.pt",
    "step": 7,
    "backbone": "spherenet4",
    "digest": "00ff",
    "precision": "fp32",
    "device": "cpu",
}


def bomb():
    """The header of a PNG of 100,000 x 100,000 px."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))


def add_system_files(root):
    """Adds what macOS, network drives and Windows leave beside every file of a folder."""
    for path in sorted(root.rglob("*.*")):
        path.with_name(f"._{path.name}").write_bytes(bytes(4096))
        (path.parent / "@eaDir").mkdir(exist_ok=True)
        (path.parent / "Thumbs.db").touch()


class Recorder:
    """Embeds images as 8x8 thumbnails, and records them."""

    def __init__(self):
        self.images = []

    def __call__(self, images):
        assert images.dtype == np.uint8
        self.images.extend(images)
        rows = images.reshape(len(images), 8, 16, -1).sum(2, dtype=np.uint16)  # ten times as fast as mean((2, 4))
        sums = rows.reshape(len(images), 8, 8, 16, 3).sum(3, dtype=np.uint32)
        return (sums / 256).reshape(len(images), -1).astype(np.float32) - 128


class Noisy(Recorder):
    """A worse network: adds noise that depends on the image only."""

    def __init__(self, level):
        super().__init__()
        self.level = level

    def __call__(self, images):
        clean = super().__call__(images)
        noise = [np.random.default_rng(int(image.sum())).normal(size=clean.shape[1]) for image in images]
        return clean + self.level * np.array(noise, np.float32)


def score(name, root, embed=None, *, allow_missing=False, intervals=False, checkpoint=FACTS, landmarks=(), **engine):
    """Reads and scores a benchmark, without intervals by default, because they are slow."""
    protocol = BENCHMARKS[name].read(root, landmarks)
    engine = Engine(embed=embed or Recorder(), **engine)
    return run(protocol, engine, checkpoint=checkpoint, allow_missing=allow_missing, intervals=intervals)


def cosine(first, second):
    return float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))


def write_result(path, result):
    """Writes one result as JSON; returns the path."""
    write_json([result], path)
    return path


def clearer(result):
    """A result of pairs, as a network would give it that tells most people apart."""
    (key,) = result.settings
    samples = result.settings[key]
    noise = np.random.default_rng(0).normal(scale=0.1, size=len(samples.scores))
    better = dataclasses.replace(samples, scores=np.where(samples.genuine, 0.4, 0.0) + noise)
    return dataclasses.replace(result, settings={key: better}, metrics=better.metrics(), intervals=better.intervals())
