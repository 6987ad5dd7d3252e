"""Samples as JSON."""

from __future__ import annotations

import json

import numpy as np

from benchmarks.scoring.curves import PairSamples
from benchmarks.scoring.saved import decode_samples


def test_json_round_trip_keeps_values_and_dtypes():
    samples = PairSamples(
        protocol_digest=np.arange(16, dtype=np.uint8),
        identities=np.array([[0, 1], [2, 2]], np.int32),
        scores=np.array([0.1, 0.9], np.float32),
        genuine=np.array([False, True]),
        folds=np.array([0, 1], np.int16),
        rates=np.array([0.1]),
    )
    decoded = decode_samples(json.loads(json.dumps(samples.to_dict())))
    for name in ("protocol_digest", "identities", "scores", "genuine", "folds", "rates"):
        before, after = getattr(samples, name), getattr(decoded, name)
        assert before.dtype == after.dtype
        assert np.array_equal(before, after)
