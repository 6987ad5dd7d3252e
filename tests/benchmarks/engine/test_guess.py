"""What a network probably expects: colour order, range and template are tried on pairs."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from benchmarks.datasets.lfw import read_lfw
from benchmarks.engine.guess import guess_preprocessing
from benchmarks.errors import ProtocolError
from benchmarks.scoring.protocols import PairProtocol
from pipeline.named_specs import NAMED_SPECS
from pipeline.prepare import Request
from pipeline.spec import Preprocessing

PEOPLE, IMAGES = 12, 4
SPEC = Preprocessing.unaligned(size=32)
PROTOTYPES = np.sort(np.random.default_rng(1).integers(0, 256, (300, 3)))[:, ::-1]  # colours with more red than blue


def protocol(folder, *, grey=False, people=PEOPLE):
    """Pairs of images of one colour a person, with noise."""
    random = np.random.default_rng(0)
    requests, identities = [], []
    for person in range(people):
        colour = np.sort(random.integers(16, 240, 3))[::-1]  # more red than blue
        for number in range(IMAGES):
            noise = random.normal(0, 8, (32, 32, 3)) + random.normal(0, 8, 3)
            image = np.clip(colour + noise, 0, 255).astype(np.uint8)
            image = np.repeat(image[..., :1], 3, 2) if grey else image
            path = folder / f"{person}-{number}.png"
            cv2.imwrite(str(path), image[..., ::-1])
            requests.append(Request(path=path))
            identities.append(person)
    pairs = [(a, b) for a in range(len(requests)) for b in range(a)]
    members, identities = np.array(pairs), np.array(identities)
    return PairProtocol(
        name="toy",
        title="Toy",
        root=folder,
        requests=requests,
        main="accuracy@full",
        published_counts={},
        members={"{}@full": members},
        identities=identities[members],
        genuine=identities[members[:, 0]] == identities[members[:, 1]],
        folds=np.arange(len(members)) % 2,
    )


def network(expected):
    """Similarities to ``PROTOTYPES``: they tell people apart if pixels are in the range and order that is expected."""

    def embed_with(spec):
        def embed(images):
            pixels = images[..., ::-1] if spec.color == "BGR" else images
            pixels = (pixels / 255 - np.array(spec.mean)) / np.array(spec.std)
            seen = pixels.mean((1, 2)) * np.array(expected.std) + np.array(expected.mean)
            seen = seen[:, ::-1] if expected.color == "BGR" else seen
            distances = np.linalg.norm(np.clip(seen, 0, 1)[:, None] * 255 - PROTOTYPES, axis=2)
            return (np.exp(-((distances / 60) ** 2)) + 0.2).astype(np.float32)

        return embed

    return embed_with


@pytest.mark.parametrize(
    "expected",
    [
        {},
        {"mean": 0.0, "std": 1 / 255},
        {"mean": 0.5, "std": 1 / 255},
        {"color": "BGR"},
        {"color": "BGR", "mean": 0.0, "std": 1 / 255},
    ],
    ids=str,
)
def test_what_a_network_expects_is_found(tmp_path, expected):
    """Colour order and range of the best one are those expected; where they are given, nothing is better."""
    pairs, wanted = protocol(tmp_path), dataclasses.replace(SPEC, **expected)
    guess = guess_preprocessing(pairs, SPEC, network(wanted))
    assert (guess.best.spec, guess.pairs, guess.grey, guess.own, guess.blind) == (wanted, 80, False, [], False)
    again = guess_preprocessing(pairs, wanted, network(wanted))
    assert again.best is again.given
    assert again.given.separation == pytest.approx(guess.best.separation)


def test_grey_images_do_not_show_the_colour_order(tmp_path):
    guess = guess_preprocessing(protocol(tmp_path, grey=True), SPEC, network(SPEC))
    assert guess.grey
    assert not [trial for trial in guess.trials if "colour" in trial.what]


def test_a_network_that_ignores_a_setting_is_tried_once(tmp_path):
    """As a function of the user's own, which gets the images whatever the spec says."""
    calls = []
    embed = network(SPEC)(SPEC)

    def embed_with(spec):
        calls.append(spec)
        return embed

    guess = guess_preprocessing(protocol(tmp_path), SPEC, embed_with)
    assert (guess.own, guess.trials, len(calls)) == (["colour order", "range"], [], 3)


def test_a_network_that_separates_no_people_is_blind(tmp_path):
    random = np.random.default_rng(0)
    guess = guess_preprocessing(
        protocol(tmp_path), SPEC, lambda spec: lambda images: random.normal(size=(len(images), 9))
    )
    assert guess.blind
    assert guess.best is guess.given
    broken = guess_preprocessing(
        protocol(tmp_path), SPEC, lambda spec: lambda images: np.full((len(images), 9), np.nan)
    )
    assert broken.blind


def test_templates_are_tried_on_aligned_faces(demo):
    def embed_with(spec):
        def embed(images):
            cells = images.reshape(len(images), 8, 4, 8, 4, 3).mean((2, 4))
            return cells.reshape(len(images), -1) - 128 + np.mean(spec.mean) * 1e-3

        return embed

    guess = guess_preprocessing(read_lfw(demo("LFW")), NAMED_SPECS["arcface"].resized(32), embed_with)
    assert [trial.what for trial in guess.trials][-3:] == ["template seed", "template facenet", "template dlib"]
    assert {trial.spec.size for trial in guess.trials} == {32}


def test_unusable_images_are_left_out_and_too_few_pairs_are_an_error(tmp_path):
    pairs = protocol(tmp_path)
    for number in range(IMAGES):
        (tmp_path / f"0-{number}.png").unlink()
        (tmp_path / f"1-{number}.png").write_bytes(b"x")
    assert guess_preprocessing(pairs, SPEC, network(SPEC)).pairs == 80
    (tmp_path / "few").mkdir()
    with pytest.raises(ProtocolError, match="bench toy: 6 usable pairs of a kind, expected 8"):
        guess_preprocessing(protocol(tmp_path / "few", people=1), SPEC, network(SPEC))
