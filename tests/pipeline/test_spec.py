"""The preprocessing spec: valid values, and the fields that fine-tuning can change."""

from __future__ import annotations

import pytest

from pipeline.spec import Preprocessing, SpecError


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


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": 112}, "size: checkpoint 112, shards 128"),
        ({"color": "BGR"}, "color: checkpoint 'BGR', shards 'RGB'"),
        ({"mean": 0.4, "std": 0.2}, "mean: checkpoint 0.4, shards 0.5; std: checkpoint 0.2, shards 0.5"),
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
        ({"jpeg_quality": 101}, "jpeg_quality is 101, expected 1 to 100"),
    ],
)
def test_values_out_of_range_are_named(changes, says):
    with pytest.raises(SpecError) as error:
        Preprocessing(**changes)
    assert str(error.value) == f"preprocessing spec: {says}; restore the file that contains it"
