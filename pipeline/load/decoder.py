"""Decoding by DALI: libjpeg-turbo on a CPU, nvJPEG on a GPU.

No other file imports DALI, apart from the one with which ``doctor`` looks whether it works.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.utils.dlpack
from nvidia.dali import Pipeline, fn, pipeline_def, types

from pipeline.load.local_processes import local_processes
from shards.arguments import shown
from shards.messages import counted

PREFETCH_BATCHES = 2  # decoded ahead
# Fraction of a batch for the hardware JPEG decoder, on GPUs that have one (A100, H100). DALI's own default is 0.65. It has
# not been measured which is better for crops of this size: `bench speed gpu` times several.
HW_DECODER_LOAD = 0.9
MAX_THREADS = 16  # by default; so many decode faster on the CPU than any of the networks trains
THREAD_LIMIT = 1024  # DALI ends the process if it cannot start its threads
KEPT_OUTPUTS = 4  # that a GPU has not read yet: the host is at most so many batches ahead of it


def default_threads() -> int:
    """CPU threads of DALI: the cores that this process may use, shared by those that torchrun started on this machine."""
    return min(max(len(os.sched_getaffinity(0)) // local_processes(), 1), MAX_THREADS)


def _leave_pipelines_to_the_parent() -> None:
    """In a forked child, the destructor of a pipeline would wait for threads that only the parent has."""
    for reference in tuple(Pipeline._pipes):
        pipeline = reference()
        if pipeline is not None and pipeline._pipe is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(pipeline._pipe))  # so that it is never destroyed
            pipeline._pipe = None


os.register_at_fork(after_in_child=_leave_pipelines_to_the_parent)


class Decoder:
    """Decodes batches of JPEGs, some ahead, on one device; DALI's threads run from construction to ``close``.

    Nothing waits on the host for a GPU to decode or to read: the pixels are bound to the consumer's stream, which waits
    for DALI's, and an output is kept until the GPU has passed the work that reads it.

    Args:
        source: called for each batch, ahead; returns (N, bytes) uint8 padded with zeros.
        images: N.
        threads: CPU threads of DALI.
    """

    def __init__(self, source: Callable[[], np.ndarray], device: torch.device, *, images: int, threads: int) -> None:
        self._device, self._kept = device, Kept()
        self._decoded: Any = None
        self._pipe = decoder(
            source=source,
            decode_on="mixed" if device.type == "cuda" else "cpu",
            batch_size=images,
            num_threads=threads,
            device_id=device.index,
            prefetch_queue_depth=PREFETCH_BATCHES,
        )
        self._pipe.build()

    def run(self) -> torch.Tensor:
        """The next (N, S, S, 3) uint8 RGB images, to be read by work on the current stream, before ``queued``.

        Raises:
            RuntimeError: DALI cannot decode an image, or they differ in size.
            Exception: what ``source`` raises.
        """
        stream = torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None
        (self._decoded,) = self._pipe.run(stream)  # None: DALI's output is ready on the host
        return torch.utils.dlpack.from_dlpack(self._decoded.as_tensor())

    def queued(self) -> None:
        """To be called when all work that reads the last images is queued: it may run later, on a GPU."""
        decoded, self._decoded = self._decoded, None
        if decoded is not None and self._device.type == "cuda":
            read = torch.cuda.Event()  # type: ignore[no-untyped-call]
            read.record(torch.cuda.current_stream(self._device))
            self._kept.add(decoded, read)

    def close(self) -> None:
        """Waits for the GPU to read what is kept, and stops DALI's threads."""
        self.queued()  # if an exception came in between
        self._kept.clear()
        self._pipe = None


class Kept:
    """Outputs of DALI that the GPU may not have read yet; DALI would write into their memory again."""

    def __init__(self) -> None:
        self._outputs: deque[tuple[Any, torch.cuda.Event]] = deque()

    def add(self, output: Any, read: torch.cuda.Event) -> None:
        """Keeps ``output`` until ``read`` has happened; lets go of those before that have been read.

        Waits only if ``KEPT_OUTPUTS`` are unread: for the oldest of them.
        """
        self._outputs.append((output, read))
        while self._outputs and self._outputs[0][1].query():  # type: ignore[no-untyped-call]
            self._outputs.popleft()
        while len(self._outputs) > KEPT_OUTPUTS:
            self._outputs.popleft()[1].synchronize()

    def clear(self) -> None:
        """Waits until all have been read."""
        while self._outputs:
            self._outputs.popleft()[1].synchronize()


def checked_device(device: str) -> torch.device:
    """The device, with the number of the GPU. Raises: ValueError: unknown device, or there is no such GPU."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {shown(device)}, expected cpu, cuda or cuda:N")
    if found.type == "cpu":
        return found
    if not torch.cuda.is_available():
        raise ValueError(f"device is {device!r}, but PyTorch finds no GPU; use cpu")
    index = torch.cuda.current_device() if found.index is None else found.index
    if index >= (gpus := torch.cuda.device_count()):
        raise ValueError(f"device is {device!r}, but PyTorch finds {counted(gpus, 'GPU')}, from cuda:0 on")
    return torch.device("cuda", index)


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
