"""Published figures, as fractions, each with its source."""

from __future__ import annotations

# Lai & Lam, Deep Siamese network for low-resolution face recognition, ICIP 2021, and the results page of its 2024 release.
QMUL: dict[str, dict[str, float]] = {
    "Lai & Lam 2021, paper": {
        "tar@far=0.3": 0.7509,
        "tar@far=0.1": 0.5274,
        "tar@far=0.01": 0.2141,
        "tar@far=0.001": 0.1102,
        "auc": 0.8003,
    },
    "its checkpoint, re-run 2024": {
        "tar@far=0.3": 0.7515,
        "tar@far=0.1": 0.5241,
        "tar@far=0.01": 0.2186,
        "tar@far=0.001": 0.1049,
        "auc": 0.8006,
    },
    "reproduced 2024": {
        "tar@far=0.3": 0.7756,
        "tar@far=0.1": 0.5637,
        "tar@far=0.01": 0.2871,
        "tar@far=0.001": 0.1188,
        "auc": 0.8217,
    },
}
