"""The training step: what it reports besides times."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.speed.faces import Setup
from benchmarks.speed.step import peak_share, time_step
from benchmarks.speed.timing import Row, Timing


@pytest.mark.parametrize(
    ("card", "share"),
    [
        ("NVIDIA H100 80GB HBM3", {"of the card's bf16 peak": "50.0%"}),
        ("NVIDIA H200", {"of the card's bf16 peak": "50.0%"}),
        ("NVIDIA H100 PCIe", {}),
        ("CPU", {}),
    ],
)
def test_the_share_of_the_peak_is_reported_for_cards_with_a_known_peak(card, share):
    row = Row("ours", "", 1, np.array([0.002, 0.002]))  # an image in 2 ms
    timing = Timing(stage="step", title="", unit="images", facts={}, rows={"ours": row})
    assert peak_share(timing, card, 989_000_000_000) == share


def test_ctrl_c_during_the_training_is_an_interruption(vggface2, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.speed.step.train", lambda batches, state, run: 3)  # returns early, as on Ctrl-C
    with pytest.raises(KeyboardInterrupt):
        next(time_step(Setup(root=vggface2.parent, scratch=tmp_path / "scratch", rounds=1, quick=True)))
