"""The script that measures searches."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tools.search_cost import GALLERY_NOISE, IMAGES, PROBE_NOISE, faces, main, recall


def test_generated_faces_are_in_clusters():
    people, images = np.repeat(np.arange(300), 2), np.tile([0, 1], 300)
    gallery = faces(people, images, 512, GALLERY_NOISE)
    probes = faces(np.arange(300), np.full(300, IMAGES), 512, PROBE_NOISE)
    scores = gallery @ gallery.T
    genuine = (people[:, None] == people) & (images[:, None] != images)
    assert scores[genuine].mean() == pytest.approx(0.6, abs=0.02)
    assert scores[people[:, None] != people].std() == pytest.approx(0.06, abs=0.01)
    assert (probes @ gallery.T)[np.arange(300)[:, None] == people].mean() == pytest.approx(0.35, abs=0.02)


def test_recall_counts_the_exact_matches_that_were_found():
    exact = {"p/1/0": {"g/1/0", "g/1/1", "g/2/0"}, "p/3/0": {"g/2/0"}}
    found = {"p/1/0": {"g/1/0", "g/2/0", "g/9/0"}, "p/3/0": {"g/8/0"}}
    assert recall(found, exact, mates=False) == 2 / 4
    assert recall(found, exact, mates=True) == 1 / 2


@pytest.mark.heavy
def test_memory_does_not_grow_with_the_gallery(tmp_path, capsys, monkeypatch):
    peaks = []
    for rows in ("20000", "200000"):
        words = ["search_cost.py", str(tmp_path), "--gallery", rows, "--probes", "50", "--variants"]
        monkeypatch.setattr(sys, "argv", words)
        main()
        row = capsys.readouterr().out.splitlines()[2].split(" | ")
        assert (row[0], row[-1]) == ("| exact", "1.000 |")
        peaks.append(float(row[4].replace(",", "")))
    assert 0 < peaks[1] < peaks[0] + 100  # MB; the larger gallery has 410
