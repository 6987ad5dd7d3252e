"""Batches of small loaders, and small shard sets, for the tests of this folder."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from pipeline.load.loader import Loader
from pipeline.spec import Preprocessing
from shards.files import write_record
from shards.finish import finish_set
from shards.index import ShardIndex
from shards.schema import PLAN
from shards.writer import Row, ShardWriter

BATCH = 4
STEPS = 5  # two epochs of two steps and one more


def batches_of(index, steps, **options):
    with Loader(index, batch_size=BATCH, threads=1, **options) as loader:
        return [next(loader) for _ in range(steps)]


def global_batches(per_rank):
    """Global batches from those of all ranks: (images, labels) by step."""
    return [
        (torch.cat([batch.images for batch in batches], 1), torch.cat([batch.labels for batch in batches]))
        for batches in zip(*per_rank, strict=True)
    ]


def assert_same(ours, theirs):
    assert len(ours) == len(theirs) > 0
    for (images, labels), (other_images, other_labels) in zip(ours, theirs, strict=True):
        assert torch.equal(labels, other_labels)
        assert torch.equal(images, other_images)


def write_set(root, images):
    """A finished shard set of (128, 128) spec with the given JPEGs, two of each identity; all checksums are right."""
    with ShardWriter(root, 0, "f") as writer:
        for number, data in enumerate(images):
            writer.add(Row(key=f"n{number // 2}/{number}", identity=f"n{number // 2}", label=number // 2), data)
        record = writer.commit()
    write_record(root / PLAN, {"root": str(root), "parts": {}})
    spec = Preprocessing().to_dict()
    finish_set(root, [record], fingerprint="f", source="folder", identities=4, preprocessing=spec, versions={})
    return ShardIndex(root)


def jpeg_of(size):
    image = np.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()
