"""Preparation of images: supported specs, crops, cache keys."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import scipy.optimize

from pipeline.align import crop_points, fit_crops
from pipeline.named_specs import NAMED_SPECS
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
        *NAMED_SPECS.values(),
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
            Preprocessing(color="GRB", warp="x"),
            "warp: checkpoint 'x', supported 'opencv-cubic' or 'opencv-linear'; color: checkpoint 'GRB', supported 'RGB' or"
            " 'BGR'",
        ),
        (Preprocessing.unaligned(color="grey"), "color: checkpoint 'grey', supported 'RGB' or 'BGR'"),
        (Preprocessing(fit="x"), "fit: checkpoint 'x', supported 'inverse' or 'forward' or 'upright'"),
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
        "x.pt: preprocessing spec: template 'mine' is unknown, expected seed, arcface or none, or points of"
        " its own; score it with the version that trained it"
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
        ({"points": ((-1e6, FACE[0][1]), *FACE[1:])}, "landmarks lie far outside the image"),
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


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        (Preprocessing(), "47681ea1a2965ae9f45ca14de8c24487"),
        (Preprocessing(template="arcface", size=112, mean=0.4), "0a00bc454d36a223150395a1341b18ba"),
        (Preprocessing.unaligned(size=64), "5e6e779c913b45e983d3af645106a348"),
    ],
)
def test_cache_keys_are_those_of_earlier_versions(spec, key):
    """Fixed: computed before the spec had points, margin, fit and stretch."""
    request = Request(path="a.png", down=8, points=((1.0, 2.0),) * 5)
    assert cache_key(b"image", request, spec).hex() == key


def test_points_of_a_spec_are_where_they_should_be_in_the_crop():
    """Each point of the face is a white square; in the crop it stands at the point of the spec."""
    for spec in (NAMED_SPECS["dlib"], NAMED_SPECS["facenet"], Preprocessing(template="arcface", size=150, margin=30)):
        target = crop_points(spec, spec.size)
        points = target / (spec.stretch, 1) * 1.5 + (20, 30)
        image = np.zeros((300, 300, 3), np.uint8)
        for x, y in points:
            cv2.rectangle(image, (round(x) - 4, round(y) - 4), (round(x) + 4, round(y) + 4), (255, 255, 255), -1)
        request = Request(path="a.png", points=tuple(map(tuple, points.tolist())))
        (crop,) = prepare(as_png(image), [request], spec)
        assert [int(crop[round(y), round(x), 0]) for x, y in target] == [255] * 5
        assert (crop > 127).mean() < 0.03


def test_an_upright_crop_is_not_rotated():
    spec = Preprocessing(fit="upright")
    angle = np.radians(30)
    points = crop_points(spec, 128) @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrices, good = fit_crops(points[None], crop_points(spec, 128), spec)
    assert good.all()
    assert matrices[0][:, :2] == pytest.approx(np.eye(2))
    moved = points @ matrices[0][:, :2].T + matrices[0][:, 2]
    assert moved.mean(0) == pytest.approx(crop_points(spec, 128).mean(0))


def test_a_forward_fit_minimises_the_error_in_the_crop():
    """scipy's minimum of the same error, from another start."""
    spec, target = NAMED_SPECS["insightface"], crop_points(NAMED_SPECS["insightface"], 112)
    points = target * 2 + np.random.default_rng(0).normal(0, 4, target.shape)

    def error(values):
        a, b, x, y = values
        return (points @ [[a, b], [-b, a]] + (x, y) - target).ravel()

    found = scipy.optimize.least_squares(error, [1, 0, 0, 0]).x
    matrices, _ = fit_crops(points[None], target, spec)
    assert matrices[0] == pytest.approx(
        np.array([[found[0], -found[1], found[2]], [found[1], found[0], found[3]]]), abs=1e-5
    )
    inverse, _ = fit_crops(points[None], target, Preprocessing(template="arcface"))
    assert abs(matrices - inverse).max() > 1e-3
