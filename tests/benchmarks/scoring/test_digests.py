"""Digests of requests and protocols."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from benchmarks.scoring.digests import protocol_digest, request_digests
from pipeline.prepare import Request

POINTS = ((40.0, 50.0), (70.0, 50.0), (55.0, 65.0), (43.0, 80.0), (67.0, 80.0))
FIRST = Request(path=Path("/d/x/a.jpg"), points=POINTS, points_size=(250, 250), side=90, down=8)
SECOND = Request(path=Path("/d/x/b.jpg"))


def test_digests_never_change():
    """Computed by version 0.1.0: results of that version stay comparable."""
    digests = request_digests([FIRST, SECOND])
    assert [digest.tobytes().hex() for digest in digests] == [
        "e969f063ac40eb6016dfbef5d06d647f",
        "af7f344135ee11b74fe49ab3318ad815",
    ]
    assert protocol_digest([digests], [np.array([1, 2])]).tobytes().hex() == "0313445c97ff5da050002854972a665d"


def test_request_digests_depend_on_path_and_preparation():
    changes = [{"path": Path("/d/x/c.jpg")}, {"points": None}, {"points_size": None}, {"side": 91}, {"down": 12}]
    digests = [
        request_digests([request, SECOND])[0].tobytes()
        for request in (FIRST, *(dataclasses.replace(FIRST, **change) for change in changes))
    ]
    assert len(set(digests)) == 6
    assert request_digests([dataclasses.replace(FIRST, place="x.csv"), SECOND])[0].tobytes() == digests[0]


def test_protocol_digests_depend_on_order_and_labels():
    digests = request_digests([FIRST, SECOND])
    labels = np.array([1, 2])
    different = [
        protocol_digest([digests], [labels]),
        protocol_digest([digests[::-1]], [labels]),
        protocol_digest([digests], [labels[::-1]]),
        protocol_digest([digests[:1], digests[1:]], [labels]),
        protocol_digest([digests], [labels, labels]),
    ]
    assert len({digest.tobytes() for digest in different}) == 5
