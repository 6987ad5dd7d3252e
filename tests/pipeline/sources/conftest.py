"""People of a RecordIO file."""

from __future__ import annotations

import cv2
import pytest

from tests.pipeline.sources.records import SIDE


@pytest.fixture(scope="module")
def people(painted):
    """The JPEGs of some people, 112 px."""
    return [
        [
            cv2.imencode(".jpg", cv2.resize(image, (SIDE, SIDE))[..., ::-1])[1].tobytes()
            for image, _ in shots[: 2 + number]
        ]
        for number, shots in enumerate(list(painted.values())[:3])
    ]
