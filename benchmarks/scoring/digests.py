"""Digests of what a protocol scores. Two results may be paired only if their digests are equal."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash

from pipeline.prepare import Request

DIGEST_BYTES = 16


def request_digests(requests: Sequence[Request]) -> np.ndarray:
    """(N, 16) uint8 digests of the requests: path and preparation.

    Paths are relative to the common parent folder, so that copies of a data set have the same digests. Images within a
    file are identified by their content: the file may be written in several ways.
    """
    paths = [str(request.path) for request in requests]
    prefix_length = len(os.path.commonpath(paths))
    contents = [
        [_image(request, path[prefix_length:]), *_preparation(request)]
        for path, request in zip(paths, requests, strict=True)
    ]
    digests = b"".join(xxhash.xxh3_128_digest(json.dumps(content).encode()) for content in contents)
    return np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES)


def _preparation(request: Request) -> list[Any]:
    """How images are degraded to their sizes does not count: results with and without a preset can be paired."""
    return [value for name, value in request.preparation.items() if name != "degradation"]


def _image(request: Request, path: str) -> str:
    return os.fsencode(path).hex() if request.part is None else f"part {request.part.digest.hex()}"


def protocol_digest(images: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> np.ndarray:
    """(16,) uint8 digest of the images and labels of one setting, in their order.

    Args:
        images: for each role, such as probe or gallery, the (n, 16) ``request_digests`` of its images.
        labels: integer or bool arrays, such as identities and folds.
    """
    hasher = xxhash.xxh3_128()
    for part in (*images, *(np.asarray(label, "<i8") for label in labels)):
        hasher.update(str(part.shape).encode())
        hasher.update(np.ascontiguousarray(part).tobytes())
    return np.frombuffer(hasher.digest(), np.uint8)
