"""Realistic degradation: each image is a pure function of its pixels and its numbers."""

from __future__ import annotations

import dataclasses
import threading

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline.degradation import realistic
from pipeline.degradation.parameters import bias, parameters
from pipeline.degradation.presets import PRESETS
from pipeline.degradation.realistic import _add_noise_, degrade_as
from pipeline.degradation.settings import Preset, Round
from pipeline.load.degrade import degrade, resize
from pipeline.philox import DEGRADATION_NUMBERS, degradation_numbers
from tests.processes import PATIENCE_S

SIDE, COUNT = 128, 12
CUBIC = (0.0, 0.0, 1.0, 0.0, 0.0)
NOTHING = Preset(shrink=CUBIC, enlarge=CUBIC, rounds=(Round(quality=(100, 100)),))


def degraded(images, preset, numbers, sizes, flips=None, span=range(8, 33)):
    flips = np.zeros(len(images), bool) if flips is None else flips
    drawn = parameters(preset, numbers, sizes, flips)
    values = {name: torch.from_numpy(value) for name, value in drawn.items()}
    out = torch.empty_like(images)
    degrade_as(out, images, preset, values, sizes=span)
    return out


@pytest.fixture(scope="module")
def faces(painted):
    crops = [cv2.resize(shots[0][0][:120], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for shots in painted.values()]
    return torch.from_numpy(np.stack([crops[index % len(crops)] for index in range(COUNT)]))


@pytest.fixture(scope="module")
def numbers():
    return degradation_numbers(3, 1, slice(0, COUNT), 0)


@pytest.fixture(scope="module")
def sizes():
    return np.random.default_rng(0).integers(8, 33, COUNT)


@pytest.mark.parametrize("name", PRESETS)
def test_an_image_does_not_depend_on_the_others(faces, numbers, sizes, name):
    flips = np.arange(COUNT) % 2 == 0
    together = degraded(faces, PRESETS[name], numbers, sizes, flips)
    for part in (slice(0, 1), slice(1, 4), slice(4, 12)):
        assert torch.equal(
            degraded(faces[part], PRESETS[name], numbers[part], sizes[part], flips[part]), together[part]
        )


@pytest.mark.parametrize("name", PRESETS)
def test_images_of_one_person_and_size_differ_by_their_numbers(faces, numbers, name):
    same = faces[:1].expand(COUNT, -1, -1, -1).contiguous()
    out = degraded(same, PRESETS[name], numbers, np.full(COUNT, 16))
    assert out.dtype == torch.uint8
    assert len({image.numpy().tobytes() for image in out}) == COUNT
    clean = degrade(same, 16).float()
    distance = (out.float() - clean).abs().mean((1, 2, 3))
    assert distance.min() > 1
    assert 5 < distance.mean() < 45


@pytest.mark.parametrize("side", [128, 112, 48])
@pytest.mark.parametrize("size", [8, 13, 16, 20, 32])
def test_nothing_but_resizing_is_close_to_exact_bicubic(faces, numbers, side, size):
    """Between the crop and the small image there is another size, and the JPEG at quality 100 rounds.

    Colours are those of half as many pixels, as in any 4:2:0 picture: the luminance is compared.
    """
    images = torch.from_numpy(
        np.stack([cv2.resize(one.numpy(), (side, side), interpolation=cv2.INTER_AREA) for one in faces])
    )
    out = degraded(images, NOTHING, numbers, np.full(COUNT, size), span=range(size, size + 1))
    difference = ((out.float() - degrade(images, size).float()) @ torch.tensor([0.299, 0.587, 0.114])).abs()
    assert difference.mean() < 1.3
    assert (difference > 8).float().mean() < 0.01


def test_flips_mirror_the_result(faces, numbers, sizes):
    plain = degraded(faces, PRESETS["surveillance"], numbers, sizes)
    flipped = degraded(faces, PRESETS["surveillance"], numbers, sizes, np.ones(COUNT, bool))
    difference = (plain.flip(2).float() - flipped.float()).abs()
    assert difference.max() <= 1  # of the resize to the crop's size


def only(**changes):
    """A preset with one effect; ``changes`` of the round or the preset."""
    rounds = {field.name for field in dataclasses.fields(Round)}
    settings = dataclasses.replace(
        NOTHING.rounds[0], **{name: value for name, value in changes.items() if name in rounds}
    )
    other = {name: value for name, value in changes.items() if name not in rounds}
    return dataclasses.replace(NOTHING, rounds=(settings,), **other)


def flat(level):
    return torch.full((COUNT, SIDE, SIDE, 3), level, dtype=torch.uint8)


def test_noise_has_the_deviation_that_was_drawn(numbers):

    def added(level, **noise):
        """What is added to the planes of flat images; the rest of the values is not used."""
        planes = torch.zeros((3, COUNT, 32, 32))
        planes[0] = 4 * level
        drawn = parameters(only(**noise), numbers, np.full(COUNT, 32), np.zeros(COUNT, bool))
        _add_noise_(planes, {name.removesuffix("0"): torch.from_numpy(value) for name, value in drawn.items()})
        assert torch.equal(planes, planes.round())
        return planes[0] - level, planes[1:]

    luma, chroma = added(128, noise=(8, 8), chroma_noise=(0, 0))
    assert luma.std() == pytest.approx(8, rel=0.03)
    assert (chroma == 0).all()
    assert added(128, noise=(8, 8), chroma_noise=(0.5, 0.5))[1].std() == pytest.approx(4, rel=0.03)
    for level in (16, 64, 220):
        luma = added(level, shot_noise=(10, 10), noise=(3, 3))[0]
        assert luma.std() == pytest.approx((9 + 100 * level / 255) ** 0.5, rel=0.04)


def test_light_and_tone(numbers):
    def level(before, **changes):
        return degraded(flat(before), only(**changes), numbers, np.full(COUNT, 16)).float().mean().item()

    assert level(128) == pytest.approx(128, abs=1)
    assert level(64, gamma=(1.5, 1.5)) == pytest.approx(255 * (64 / 255) ** 1.5, abs=8)
    assert level(128, gamma=(0.5, 0.5)) == pytest.approx(255 * (128 / 255) ** 0.5, abs=2)
    assert level(200, contrast=(0.5, 0.5)) == pytest.approx(164, abs=1)
    assert level(100, brightness=(30, 30)) == pytest.approx(130, abs=1)
    assert level(250, brightness=(30, 30)) == pytest.approx(255, abs=1)
    assert bias(np.array(1.0)) == 0


def test_interlacing_moves_every_other_line(numbers):
    bars = torch.zeros((COUNT, SIDE, SIDE, 3), dtype=torch.uint8)
    bars[:, :, 64:] = 255
    out = degraded(bars, only(interlaced=1.0), numbers, np.full(COUNT, 32), span=range(32, 33)).float()
    lines = out.mean((2, 3))[:, 2::4]
    assert (lines[:, ::2] - 127.5).abs().mean() < 3
    assert (lines[:, 1::2] - lines[:, ::2]).abs().mean() > 2
    still = degraded(bars, only(interlaced=0.0), numbers, np.full(COUNT, 32), span=range(32, 33)).float()
    assert still.mean((2, 3)).std() < 1


@pytest.mark.parametrize("kind", ["gaussian", "anisotropic", "motion"])
def test_blur_takes_detail_away(faces, numbers, kind):
    sharp = degraded(faces, only(), numbers, np.full(COUNT, 32)).float()
    blurred = degraded(
        faces, only(**{kind: 1.0}, sigma=(1.5, 1.5), motion_length=(5, 5)), numbers, np.full(COUNT, 32)
    ).float()
    detail = [
        (one[:, :, 4:] - one[:, :, :-4]).abs().mean() + (one[:, 4:] - one[:, :-4]).abs().mean()
        for one in (sharp, blurred)
    ]
    assert detail[1] < 0.85 * detail[0]


def test_a_second_round_degrades_more(faces, numbers):
    both = PRESETS["blind-sr"]
    once = dataclasses.replace(both, rounds=both.rounds[1:])
    clean = degrade(faces, 16).float()
    distances = [
        (degraded(faces, preset, numbers, np.full(COUNT, 16), span=range(16, 33)).float() - clean).abs().mean()
        for preset in (once, both)
    ]
    assert distances[1] > distances[0]


@pytest.mark.parametrize("span", [range(8, 33), range(16, 17)])
def test_some_images_have_two_rounds(faces, numbers, span):
    """Each is what it is if all have two rounds, or none."""
    sizes = np.random.default_rng(1).integers(span[0], span[-1] + 1, COUNT)
    once, some, all_of_them = (
        degraded(faces, dataclasses.replace(PRESETS["blind-sr"], twice=share), numbers, sizes, span=span)
        for share in (0.0, 0.5, 1.0)
    )
    twice = (some != once).flatten(1).any(1)
    assert 0 < twice.sum() < COUNT
    assert torch.equal(some[twice], all_of_them[twice])
    assert (all_of_them != once).flatten(1).any(1).all()


def test_precision_and_threads_of_training_do_not_matter_and_stay(faces, numbers, sizes, monkeypatch):
    def settings():
        return torch.get_float32_matmul_precision(), torch.get_num_threads()

    def resize_(*given, **how):
        found.add(settings())
        return resize(*given, **how)

    found, before = set(), settings()
    monkeypatch.setattr(realistic, "resize", resize_)
    torch.set_float32_matmul_precision("medium")
    torch.set_num_threads(3)
    try:
        degraded(faces, PRESETS["webcam"], numbers, sizes)
        assert settings() == ("medium", 3)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.set_num_threads(before[1])
    assert found == {("highest", 1)}


def test_threads_that_degrade_at_once_leave_precision_and_threads_as_they_were(faces, numbers, sizes, monkeypatch):
    """The second one begins during the first and ends after it: it would restore what the first has changed."""
    first_is_in, second_is_in, first_has_left = threading.Event(), threading.Event(), threading.Event()

    def resize_(*given, **how):
        is_second = threading.current_thread() is second
        (second_is_in if is_second else first_is_in).set()
        assert (first_has_left if is_second else second_is_in).wait(PATIENCE_S)
        found.append((torch.get_float32_matmul_precision(), torch.get_num_threads()))
        return resize(*given, **how)

    def degrade_second():
        assert first_is_in.wait(PATIENCE_S)
        degraded(faces, PRESETS["webcam"], numbers, sizes)

    found, of_fresh_thread, before = [], [], torch.get_num_threads()
    second = threading.Thread(target=degrade_second)
    monkeypatch.setattr(realistic, "resize", resize_)
    torch.set_float32_matmul_precision("high")
    torch.set_num_threads(3)
    try:
        second.start()
        degraded(faces, PRESETS["webcam"], numbers, sizes)
        first_has_left.set()
        second.join()
        fresh = threading.Thread(target=lambda: of_fresh_thread.append(torch.get_num_threads()))
        fresh.start()
        fresh.join()
        assert (torch.get_float32_matmul_precision(), torch.get_num_threads(), of_fresh_thread) == ("high", 3, [3])
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.set_num_threads(before)
    assert found
    assert set(found) == {("highest", 1)}


@pytest.mark.parametrize("place", ["cpu", "meta"])
def test_cudnn_is_off_for_images_on_a_gpu_alone(place, monkeypatch):
    """Threads that degrade the images of a benchmark on the CPU would turn it off for the network on the GPU."""

    def conv2d_(*given, **how):
        found.append(torch.backends.cudnn.enabled)
        return conv2d(*given, **how)

    conv2d, found = functional.conv2d, []
    monkeypatch.setattr(functional, "conv2d", conv2d_)
    planes, bank = torch.zeros((3, 2, 16, 16), device=place), torch.zeros((4, 7, 7), device=place)
    realistic._blurred(planes, bank, torch.zeros(2, dtype=torch.int64, device=place))
    assert found == [place == "cpu"]
    assert torch.backends.cudnn.enabled


def test_numbers_are_those_of_the_place_in_the_stream():
    """Frozen: a change here changes the batches of runs and needs presets of other names."""
    whole = degradation_numbers(7, 2, slice(0, 10), 1)
    assert whole.shape == (10, DEGRADATION_NUMBERS)
    assert np.array_equal(degradation_numbers(7, 2, slice(3, 5), 1), whole[3:5])
    others = [
        degradation_numbers(*key) for key in ((8, 2, slice(0, 10), 1), (7, 3, slice(0, 10), 1), (7, 2, slice(0, 10), 0))
    ]
    assert not any(np.isin(other, whole).any() for other in others)
    assert (whole[0, :3] * 2**32).tolist() == FROZEN_NUMBERS
    many = degradation_numbers(0, 0, slice(0, 4000), 0)
    assert np.abs(many.mean(0) - 0.5).max() < 0.03
    assert np.abs(np.corrcoef(many.T) - np.eye(DEGRADATION_NUMBERS)).max() < 0.08


FROZEN_NUMBERS = [206248446, 3863388163, 3065881236]
