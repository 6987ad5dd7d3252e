"""The preprocessing spec: valid values, and the fields that fine-tuning can change."""

from __future__ import annotations

import json

import pytest

from pipeline.spec import Preprocessing, SpecError

POINTS = ((40, 50), (70.5, 50), (55, 65), (43, 80), (67, 80))


def test_the_spec_of_unaligned_images():
    spec = Preprocessing.unaligned(size=112)
    assert (spec.template, spec.warp, spec.size, spec.aligned) == ("none", "pillow-bicubic", 112, False)
    assert Preprocessing.from_dict(spec.to_dict()) == spec
    assert Preprocessing().aligned


@pytest.mark.parametrize("fields", [{"template": "none"}, {"warp": "pillow-bicubic"}])
def test_template_none_requires_the_resize(fields):
    with pytest.raises(SpecError, match="use 'none' only with 'pillow-bicubic'"):
        Preprocessing(**fields)


def test_a_fine_tuned_network_aligns_as_in_its_latest_aligned_training():
    seed, arcface, resized = Preprocessing(), Preprocessing(template="arcface"), Preprocessing.unaligned()
    assert arcface.fine_tuned_on(resized) == arcface
    assert arcface.fine_tuned_on(seed) == seed
    assert resized.fine_tuned_on(seed) == seed
    assert resized.fine_tuned_on(resized) == resized
    assert seed.fine_tuned_on(Preprocessing.unaligned(jpeg_quality=80)) == seed


def test_colour_order_and_normalisation_stay_those_of_the_network():
    network = Preprocessing(color="BGR", mean=0.4, std=(0.2, 0.3, 0.4))
    for images in (Preprocessing(), Preprocessing(template="arcface"), Preprocessing.unaligned()):
        tuned = network.fine_tuned_on(images)
        assert (tuned.color, tuned.mean, tuned.std) == ("BGR", 0.4, (0.2, 0.3, 0.4))
        assert tuned.template == (images.template if images.aligned else "seed")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": 112}, "size: checkpoint 112, shards 128"),
        ({"degradation": "pillow-nearest"}, "degradation: checkpoint 'pillow-nearest', shards 'pillow-bicubic'"),
    ],
)
@pytest.mark.parametrize("images", [Preprocessing(), Preprocessing.unaligned()])
def test_fields_that_fine_tuning_cannot_change_are_named(changes, says, images):
    with pytest.raises(SpecError) as error:
        Preprocessing(**changes).fine_tuned_on(images)
    assert (
        str(error.value)
        == f"preprocessing differs ({says}); fine-tune on shards built with the checkpoint's preprocessing"
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": 0}, "size is 0, expected 1 px or more"),
        ({"mean": float("nan")}, "mean is nan, expected a finite number"),
        ({"std": 0.0}, "std is 0.0, expected a finite number above 0"),
        ({"std": float("inf")}, "std is inf, expected a finite number above 0"),
        ({"mean": (0.5, 1e999, 0.5)}, "mean is (0.5, inf, 0.5), expected float, or three"),
        ({"std": (0.5, 0, 0.5)}, "std is (0.5, 0.0, 0.5), expected a finite number above 0"),
        ({"margin": 128}, "margin is 128, expected 0 px or more, below the size"),
        ({"stretch": 0.0}, "stretch is 0.0, expected 0.1 to 10"),
        ({"jpeg_quality": 101}, "jpeg_quality is 101, expected 1 to 100"),
    ],
)
def test_values_out_of_range_are_named(changes, says):
    with pytest.raises(SpecError) as error:
        Preprocessing(**changes)
    remedy = "; restore the file that contains it" if "or three" not in says else ""
    assert str(error.value) == f"preprocessing spec: {says}{remedy}"


@pytest.mark.parametrize(
    "points", [[], [(1, 2)] * 4, [(1, 2, 3)] * 5, [("a", 1)] * 5, [(1, 2)] * 5, [(1e99, 1)] * 5, "points", POINTS[::-1]]
)
def test_points_are_five_in_their_order(points):
    with pytest.raises(SpecError, match=r"^preprocessing spec: points is .*, expected five pairs of numbers: left eye"):
        Preprocessing(template="mine", points=points)


def test_images_without_alignment_have_no_points():
    with pytest.raises(SpecError, match="template 'none' takes no points, margin, fit, stretch"):
        Preprocessing.unaligned(margin=2)


def test_fields_of_later_versions_are_written_only_if_they_are_set():
    assert Preprocessing().to_dict() == {
        "template": "seed",
        "size": 128,
        "warp": "opencv-cubic",
        "degradation": "pillow-bicubic",
        "color": "RGB",
        "mean": 0.5,
        "std": 0.5,
        "jpeg_quality": 95,
    }
    assert Preprocessing(mean=[0.5] * 3, std=(0.25, 0.25, 0.25)) == Preprocessing(std=0.25)
    spec = Preprocessing(template="mine", points=POINTS, mean=(0.1, 0.2, 0.3), fit="upright", margin=3, stretch=1.2)
    record = json.loads(json.dumps(spec.to_dict()))
    assert record == spec.to_dict()
    assert set(record) - set(Preprocessing().to_dict()) == {"points", "margin", "fit", "stretch"}
    assert Preprocessing.from_dict(record) == spec
    with pytest.raises(SpecError, match=r"fields \['margins'\] are missing or unknown"):
        Preprocessing.from_dict({**record, "margins": 1})
