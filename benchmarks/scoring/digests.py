"""What a network was asked, as a digest: only answers to the same questions may be paired."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import numpy as np
import xxhash

from pipeline.prepare import Request

DIGEST_BYTES = 16


def request_digests(requests: Sequence[Request]) -> np.ndarray:
    """(N, 16) uint8 digests of the (image, preparation)s; an image by its path below the folder that holds them all.

    So copies of a data set in different places have the same.
    """
    paths = [str(request.path) for request in requests]
    start = len(os.path.commonpath(paths))
    digests = [_digest(path[start:], request) for path, request in zip(paths, requests, strict=True)]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, DIGEST_BYTES)


def _digest(name: str, request: Request) -> bytes:
    how = [os.fsencode(name).hex(), request.points, request.points_size, request.side, request.down]
    return xxhash.xxh3_128(json.dumps(how).encode()).digest()


def question_digest(images: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> np.ndarray:
    """(16,) uint8 digest of the questions of one setting; their order counts.

    Args:
        images: for each role, such as probe and gallery, the (n, 16) ``request_digests`` of those in it.
        labels: integer arrays of what belongs to them, such as identities and folds.
    """
    hasher = xxhash.xxh3_128()
    for part in (*images, *(np.asarray(label, "<i8") for label in labels)):
        hasher.update(str(part.shape).encode())
        hasher.update(np.ascontiguousarray(part).tobytes())
    return np.frombuffer(hasher.digest(), np.uint8)
