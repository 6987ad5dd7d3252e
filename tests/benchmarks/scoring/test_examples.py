"""Which images of a protocol are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import BENCHMARKS
from benchmarks.scoring.examples import EXAMPLES, HARDEST_PAIRS, hardest_pairs, spread_images
from pipeline.prepare import Request
from tests.benchmarks.runs import score


def requests(count):
    return [Request(path=Path(f"/x/{number}.jpg")) for number in range(count)]


def test_one_gallery_face_does_not_fill_all_hard_pairs():
    """Gallery image 0 is the nearest of the 30 hardest probes."""
    images = requests(60)
    scores = np.linspace(0.9, 0.1, 50)
    gallery = np.where(np.arange(50) < 30, 0, np.arange(50) % 5)
    pairs = hardest_pairs(images, scores, np.arange(10, 60), gallery, sign=-1)
    names = [side.name for pair in pairs for side in (pair.first, pair.second)]
    assert len(pairs) == 5  # there are 5 gallery images
    assert len(set(names)) == 10
    assert [pair.score for pair in pairs] == sorted((pair.score for pair in pairs), reverse=True)
    assert pairs[0].score == pytest.approx(0.9)


def test_the_hardest_pairs_are_those_of_lowest_score():
    scores = np.random.default_rng(0).permutation(20) / 20
    pairs = hardest_pairs(requests(40), scores, np.arange(20), np.arange(20, 40))
    assert [pair.score for pair in pairs] == sorted(scores)[:HARDEST_PAIRS]


def test_examples_are_distinct_images_spread_over_all():
    images = requests(100)
    found = spread_images(images, np.repeat(np.arange(100), 3))
    assert [one.path.stem for one in found] == ["0", "19", "39", "59", "79", "99"]
    assert spread_images(images, np.array([7, 7])) == [images[7]]
    assert spread_images(images, np.array([], int)) == []


def test_every_kind_of_image_has_examples(results):
    kinds = {name: {kind: len(shown) for kind, shown in result.examples.items()} for name, result in results.items()}
    sizes = ["{}@8", "{}@12", "{}@16", "{}@20", "{}@128"]
    assert set(kinds) == set(BENCHMARKS)
    assert kinds["lfw"] == dict.fromkeys(sizes, EXAMPLES)
    assert kinds["scface"] == dict.fromkeys(["gallery", "{}@d1", "{}@d2", "{}@d3"], EXAMPLES)
    assert kinds["qmul"] == {"{}": EXAMPLES}
    assert kinds["tinyface"] == {"gallery": EXAMPLES, "{}": EXAMPLES}
    assert list(kinds["qmul-id"]) == ["gallery", "mated probes", "unmated probes"]
    shown = results["lfw"].examples
    assert [[one.name for one in shown[size]] for size in sizes] == [[one.name for one in shown["{}@8"]]] * 5
    assert [one.down for one in shown["{}@8"]] == [8] * EXAMPLES


def test_unusable_images_are_no_examples(demo):
    root = demo("TinyFace")
    gone = sorted((root / "Testing_Set" / "Probe").iterdir())[:2]
    for path in gone:
        path.write_bytes(b"")
    shown = score("tinyface", root, allow_missing=True).examples["{}"]
    assert len(shown) == EXAMPLES
    assert not {one.path for one in shown} & set(gone)
