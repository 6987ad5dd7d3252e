"""Normalisation of uint8 images on the device that holds them."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from pipeline.spec import Number
from shards.arguments import check_argument, shown

Module = TypeVar("Module", bound=nn.Module)


def normalise(images: torch.Tensor, mean: Number = 0.5, std: Number = 0.5, *, color: str = "RGB") -> torch.Tensor:
    """Converts images to network inputs: ``(x / 255 - mean) / std``.

    Args:
        images: (N, S, S, 3) uint8 RGB.
        mean, std: of pixels in 0..1; one number, or one for each channel in the order of ``color``.
        color: RGB or BGR, the channels of the result.

    Returns:
        (N, 3, S, S) float32 in channels-last memory format.
    """
    if color == "BGR":
        images = images.flip(-1)
    pixels = images.permute(0, 3, 1, 2).float().div_(255.0)
    return pixels.sub_(_by_channel(mean, pixels)).div_(_by_channel(std, pixels))


def denormalise(pixels: torch.Tensor, mean: Number, std: Number, *, color: str) -> torch.Tensor:
    """Undoes ``normalise``: (N, 3, S, S) floats -> (N, S, S, 3) uint8 RGB, exactly."""
    images = (pixels.float() * _by_channel(std, pixels) + _by_channel(mean, pixels)) * 255
    images = images.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return images.flip(-1) if color == "BGR" else images


def _by_channel(value: Number, pixels: torch.Tensor) -> float | torch.Tensor:
    if not isinstance(value, tuple):
        return value
    # filled on the device: a copy of numbers of the host would wait for all that a GPU has yet to do
    return torch.stack([pixels.new_full((1, 1), one, dtype=torch.float32) for one in value])


def check_device(device: str) -> None:
    """Raises: TypeError, ValueError: it is not a name of a device, or there is no GPU."""
    check_argument(isinstance(device, str | torch.device), "device", device, "cpu, cuda or cuda:N")
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(f"device is {shown(device)}, expected cpu, cuda or cuda:N") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {shown(device)}, but PyTorch finds no GPU; use cpu")


def on_device(module: Module, device: str) -> Module:
    """Moves ``module`` to ``device`` with weights in the memory format of ``normalise``'s output, channels-last.

    Raises:
        TypeError, ValueError: there is no such device.
    """
    check_device(device)
    return module.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
