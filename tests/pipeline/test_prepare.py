"""Preparation of images: supported specs, crops, cache keys."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest

from pipeline.prepare import NoCropError, Request, cache_key, check_supported, prepare
from pipeline.spec import Preprocessing, SpecError

FACE = ((40.0, 50.0), (70.0, 50.0), (55.0, 65.0), (43.0, 80.0), (67.0, 80.0))


def as_png(image):
    return cv2.imencode(".png", image)[1].tobytes()


@pytest.mark.parametrize(
    "spec",
    [
        Preprocessing(),
        Preprocessing(size=112, mean=0.4, std=0.3, template="arcface", jpeg_quality=80),
        Preprocessing.unaligned(mean=0.4),
    ],
)
def test_size_template_and_normalisation_are_configurable(spec):
    check_supported(spec, "x.pt")
    (pixels,) = prepare(as_png(np.zeros((30, 20, 3), np.uint8)), [Request(path="x.png", down=8)], spec)
    assert pixels.shape == (spec.size, spec.size, 3)


@pytest.mark.parametrize(
    ("spec", "mismatches"),
    [
        (
            Preprocessing(degradation="pillow-nearest"),
            "degradation: checkpoint 'pillow-nearest', supported 'pillow-bicubic'",
        ),
        (
            Preprocessing(color="BGR", warp="x"),
            "warp: checkpoint 'x', supported 'opencv-cubic'; color: checkpoint 'BGR', supported 'RGB'",
        ),
        (Preprocessing.unaligned(color="BGR"), "color: checkpoint 'BGR', supported 'RGB'"),
    ],
)
def test_an_unsupported_spec_names_every_mismatch(spec, mismatches):
    with pytest.raises(SpecError) as error:
        check_supported(spec, "x.pt")
    assert str(error.value) == (
        f"x.pt: unsupported preprocessing ({mismatches}); score it with the version that trained it"
    )


def test_an_unknown_template_is_an_error():
    with pytest.raises(SpecError) as error:
        check_supported(Preprocessing(template="mine"), "x.pt")
    assert str(error.value) == (
        "x.pt: preprocessing spec: template 'mine' is unknown, expected seed, arcface or none; score it with the"
        " version that trained it"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": (), "place": "a.csv, b.csv"}, "no row for face in a.csv, b.csv"),
        ({"points": ((float("nan"),) * 2,) * 5}, "landmarks are not all finite numbers"),
        (
            {"points": ((5.0, 5.0),) * 5, "place": "a.csv row 3"},
            "landmarks (a.csv row 3) coincide or lie on one line",
        ),
        ({"points": tuple((x, 50.0) for x, _ in FACE), "side": 0}, "landmarks coincide or lie on one line"),
        ({"points": tuple((x + 500, y) for x, y in FACE)}, "landmarks lie outside the image"),
        ({"points": FACE, "side": 0}, "landmarks give a crop of 0 px, expected 1 to 4096"),
        ({"points": FACE, "side": 10**6}, "landmarks give a crop of 1000000 px, expected 1 to 4096"),
    ],
)
def test_landmarks_without_a_crop_give_a_reason(tmp_path, changes, message):
    data = as_png(np.zeros((120, 110, 3), np.uint8))
    with pytest.raises(NoCropError) as error:
        prepare(data, [Request(path=tmp_path / "face.png", **changes)], Preprocessing())
    assert str(error.value) == message


def test_points_of_a_larger_image_are_scaled(tmp_path):
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 255, (12, 11, 3), dtype=np.uint8), (110, 120), interpolation=cv2.INTER_CUBIC)
    doubled = tuple((2 * x, 2 * y) for x, y in FACE)
    plain = Request(path=tmp_path, points=FACE)
    scaled = dataclasses.replace(plain, points=doubled, points_size=(220, 240))
    first, second = prepare(as_png(image), [plain, scaled], Preprocessing())
    assert np.array_equal(first, second)


def test_a_cache_key_depends_on_image_preparation_and_spec_but_not_on_the_path(tmp_path):
    request, spec = Request(path=tmp_path / "a.jpg", down=8), Preprocessing()
    key = cache_key(b"image", request, spec)
    assert key == cache_key(b"image", dataclasses.replace(request, path=tmp_path / "b.jpg", place="x.csv"), spec)
    others = [
        cache_key(b"imagE", request, spec),
        cache_key(b"image", dataclasses.replace(request, down=12), spec),
        cache_key(b"image", dataclasses.replace(request, side=90), spec),
        cache_key(b"image", dataclasses.replace(request, points=FACE), spec),
        cache_key(b"image", dataclasses.replace(request, points=FACE, points_size=(250, 250)), spec),
        cache_key(b"image", request, Preprocessing(template="arcface")),
        cache_key(b"image", request, Preprocessing(mean=0.4)),
    ]
    assert len({key, *others}) == 8


@pytest.mark.parametrize(
    ("request_fields", "spec", "key"),
    [
        (
            {"points": FACE, "points_size": (250, 250), "side": 90, "down": 8},
            Preprocessing(),
            "6253eb6a6051c5cd60c3622d107e5de4",
        ),
        ({}, Preprocessing.unaligned(size=112), "4540f85f4fc7b83713923521f117c5d9"),
    ],
)
def test_cache_keys_never_change(tmp_path, request_fields, spec, key):
    """Computed by version 0.1.0: existing caches stay valid."""
    assert cache_key(b"image", Request(path=tmp_path, **request_fields), spec).hex() == key
