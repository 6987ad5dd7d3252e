"""The preprocessing spec: what it may state, and what fine-tuning may change of it."""

from __future__ import annotations

import pytest

from pipeline.spec import Preprocessing, SpecError


def test_unaligned_images_are_stated():
    spec = Preprocessing.unaligned(size=112)
    assert (spec.template, spec.warp, spec.size, spec.aligned) == ("none", "pillow-bicubic", 112, False)
    assert Preprocessing.from_dict(spec.to_dict()) == spec
    assert Preprocessing().aligned


@pytest.mark.parametrize("fields", [{"template": "none"}, {"warp": "pillow-bicubic"}])
def test_template_none_and_the_resize_belong_together(fields):
    with pytest.raises(SpecError, match="'none' and 'pillow-bicubic' belong together"):
        Preprocessing(**fields)


def test_a_fine_tuned_network_aligns_as_it_last_saw_a_face_aligned():
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
def test_what_fine_tuning_cannot_change_is_refused_by_name(changes, says, images):
    with pytest.raises(SpecError) as error:
        Preprocessing(**changes).fine_tuned_on(images)
    assert str(error.value) == f"preprocessing disagrees ({says}); fine-tune on shards that were built alike"


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
def test_what_is_out_of_range_is_named(changes, says):
    with pytest.raises(SpecError) as error:
        Preprocessing(**changes)
    assert str(error.value) == f"preprocessing spec: {says}; restore the file that states it"
