"""Decoding by DALI: libjpeg-turbo on a CPU, nvJPEG on a GPU.

No other file imports DALI, apart from the one with which ``doctor`` looks whether it works.
"""

from __future__ import annotations

from typing import Any

import torch
from nvidia.dali import fn, pipeline_def, types

from shards.arguments import shown

PREFETCH_BATCHES = 2  # decoded ahead
# Fraction of a batch for the hardware JPEG decoder, on GPUs that have one (A100, H100). DALI's own default is 0.65. It has
# not been measured which is better for crops of this size: `bench speed gpu` times several.
HW_DECODER_LOAD = 0.9


def checked_device(device: str) -> torch.device:
    """The device, with the number of the GPU. Raises: ValueError: unknown device, or there is no GPU."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device is {shown(device)}, expected cpu, cuda or cuda:N") from None
    if found.type != "cuda":
        return found
    if not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but PyTorch finds no GPU; use cpu")
    return found if found.index is not None else torch.device("cuda", torch.cuda.current_device())


@pipeline_def
def decoder(source: Any, decode_on: str, hw_decoder_load: float = HW_DECODER_LOAD) -> Any:
    """DALI pipeline that decodes JPEGs to RGB.

    Args:
        source: called for each batch; returns (N, bytes) uint8 padded with zeros, or a list of N (bytes,) uint8.
        decode_on: ``cpu``, or ``mixed`` for nvJPEG.
        hw_decoder_load: fraction of a batch for the hardware JPEG decoder, on GPUs that have one.
    """
    encoded = fn.external_source(source=source, batch=True, dtype=types.UINT8, ndim=1)
    hints: dict[str, Any] = {}
    if decode_on == "mixed":
        hints = {"preallocate_width_hint": 128, "preallocate_height_hint": 128, "hw_decoder_load": hw_decoder_load}
    return fn.decoders.image(encoded, device=decode_on, output_type=types.RGB, jpeg_fancy_upsampling=True, **hints)
