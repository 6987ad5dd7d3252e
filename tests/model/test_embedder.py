"""The embedder: precision, normalisation, threads."""

from __future__ import annotations

import concurrent.futures as futures
import threading

import numpy as np
import pytest
import torch

from model.backbones import build_backbone
from model.embedder import Embedder
from model.inputs import normalise
from model.training.init import initialise_from_data


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    network = build_backbone("spherenet4", image_size=32)
    inputs = torch.randn(8, 3, 32, 32)  # images differ, or all cosines would be 1
    initialise_from_data(network, torch.nn.Linear(512, 4), inputs)
    return network.eval()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_bf16_embeddings_are_float32_and_close_to_fp32(backbone, images):
    full, reduced = Embedder(backbone)(images), Embedder(backbone, precision="bf16")(images)
    assert (full.dtype, reduced.dtype, reduced.shape) == (np.float32, np.float32, (5, 512))
    assert not np.array_equal(full, reduced)
    assert cosines(full, reduced).min() > 0.99
    assert cosines(full, np.roll(full, 1, axis=0)).max() < 0.9
    assert all(weight.dtype == torch.float32 for weight in backbone.parameters())


def test_fp32_equals_the_network(backbone, images):
    with torch.inference_mode():
        expected = backbone(normalise(torch.from_numpy(images))).numpy()
    assert np.array_equal(Embedder(backbone)(images), expected)


def test_mean_and_std_are_applied(backbone, images):
    inputs = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.4) / 0.25
    with torch.inference_mode():
        expected = backbone(inputs.contiguous(memory_format=torch.channels_last)).numpy()
    found = Embedder(backbone, mean=0.4, std=0.25)(images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(found - Embedder(backbone)(images)).max() > 0.1


def test_channels_are_in_the_order_of_the_network_each_with_its_mean_and_std(backbone, images):
    mean, std = (0.3, 0.4, 0.5), (0.2, 0.25, 0.3)
    inputs = (images[..., ::-1] / 255 - mean) / std
    with torch.inference_mode():
        expected = backbone(torch.from_numpy(inputs.transpose(0, 3, 1, 2).astype(np.float32))).numpy()
    found = Embedder(backbone, mean=mean, std=std, color="BGR")(images)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    assert np.abs(found - Embedder(backbone, mean=mean, std=std)(images)).max() > 0.1
    with pytest.raises(ValueError, match=r"^Embedder: color is 'bgr', expected one of RGB, BGR$"):
        Embedder(backbone, color="bgr")


def test_flip_fusion_is_the_mean_of_both_directions_or_weighted_by_norms(backbone, images):
    one, other = Embedder(backbone)(images), Embedder(backbone)(images[:, :, ::-1])
    norms = np.linalg.norm([one, other], axis=2)
    assert abs(norms[0] - norms[1]).max() > 0.1
    for flip, summed in [
        ("norm-weighted", one + other),
        ("mean", one / norms[0][:, None] + other / norms[1][:, None]),
    ]:
        found = Embedder(backbone, flip=flip)(images)
        assert cosines(found, summed).min() > 1 - 1e-6
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), norms.mean(0), rtol=1e-5)
    assert cosines(Embedder(backbone, flip="mean")(images), found).min() > 0.9
    with pytest.raises(ValueError, match=r"^Embedder: flip is 'sum', expected one of none, mean, norm-weighted$"):
        Embedder(backbone, flip="sum")
    zero = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32 * 32 * 3, 4, bias=False))
    torch.nn.init.zeros_(zero[1].weight)
    assert not Embedder(zero, flip="mean")(images).any()


def test_a_path_is_no_backbone():
    with pytest.raises(TypeError, match=r"^Embedder: backbone is 'x\.pt', expected a module, as load_network\(path\)"):
        Embedder("x.pt")


def test_a_mean_is_a_number(backbone):
    with pytest.raises(TypeError, match=r"^Embedder: std is '0\.5', expected a finite number$"):
        Embedder(backbone, std="0.5")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda images: torch.from_numpy(images), "a Tensor of uint8 and shape (5, 32, 32, 3)"),
        (lambda images: images / 255, "a ndarray of float64 and shape (5, 32, 32, 3)"),
        (lambda images: images.transpose(0, 3, 1, 2), "a ndarray of uint8 and shape (5, 3, 32, 32)"),
        (lambda images: images[0], "a ndarray of uint8 and shape (32, 32, 3)"),
        (lambda images: images[:, :16], "a ndarray of uint8 and shape (5, 16, 32, 3)"),
        (lambda images: None, "None"),
    ],
)
def test_images_of_another_type_or_shape_are_refused(backbone, images, change, found):
    with pytest.raises(TypeError) as error:
        Embedder(backbone)(change(images))
    assert str(error.value) == f"images is {found}, expected a ndarray of uint8 and shape (N, S, S, 3), RGB"


def test_reversed_channels_are_taken(backbone, images):
    reversed_channels = images[..., ::-1]
    np.testing.assert_array_equal(Embedder(backbone)(reversed_channels), Embedder(backbone)(reversed_channels.copy()))


@pytest.mark.gpu
@pytest.mark.parametrize("flip", ["none", "mean"])
def test_batches_that_a_gpu_has_queued_do_not_mix(backbone, images, flip):
    embed = Embedder(backbone, device="cuda", flip=flip)
    several = [np.roll(images, shift, axis=1) for shift in range(4)]
    expected = [embed(one) for one in several]
    waiting = [embed.start(one) for one in several]
    assert all(np.array_equal(wait(), one) for wait, one in zip(waiting, expected, strict=True))
    assert not np.array_equal(expected[0], expected[1])


def test_an_unknown_precision_is_an_error(backbone):
    with pytest.raises(ValueError, match=r"^unknown precision 'fp16'; choose from fp32, bf16$"):
        Embedder(backbone, precision="fp16")


def test_chunks_on_several_threads_give_the_same_embeddings_and_keep_the_thread_count(backbone):
    images = np.random.default_rng(1).integers(0, 256, (37, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = backbone(normalise(torch.from_numpy(images))).numpy()
    seen, sizes = set(), []

    def record(module, inputs):
        seen.add((threading.get_ident(), torch.get_num_threads()))
        sizes.append(len(inputs[0]))

    hook = backbone.register_forward_pre_hook(record)
    before = torch.get_num_threads()
    try:
        for threads, per_worker in ((1, 1), (2, 1), (7, 1), (80, 2)):
            seen.clear()
            sizes.clear()
            torch.set_num_threads(threads)
            np.testing.assert_allclose(Embedder(backbone)(images), expected, rtol=1e-4, atol=1e-4)
            assert torch.get_num_threads() == threads
            assert {number for _, number in seen} == {per_worker}
            assert len(seen) <= threads
            assert len(sizes) % threads == 0 or set(sizes) == {1}  # equally many per thread
            assert max(sizes) <= 16
    finally:
        hook.remove()
        torch.set_num_threads(before)
    with futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == before


def test_an_exception_in_one_chunk_stops_the_batch(backbone):
    class StopError(BaseException):
        pass

    def stop(*_):
        raise StopError

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    hook = backbone.register_forward_pre_hook(stop)
    try:
        with pytest.raises(StopError):
            Embedder(backbone)(np.zeros((40, 32, 32, 3), np.uint8))
        assert torch.get_num_threads() == 2
    finally:
        hook.remove()
        torch.set_num_threads(before)
