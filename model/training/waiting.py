"""LoaderWait: how long training waits for its batches."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch


class LoaderWait:
    """Adds up the time that the work of training waits for the loader, on the device where this work runs.

    On a GPU the host runs ahead, and may wait for a batch while the GPU is still busy with the step before: nothing is
    lost then. So the wait is the time from the end of the work that was queued before the batch was asked for to the
    end of what the loader has queued for it (which includes its degradation), by events on the GPU's own clock.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds = 0.0
        self._spans: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextlib.contextmanager
    def measured(self) -> Iterator[None]:
        """Counts the block, in which a batch is fetched. Does not synchronise with the device."""
        if self._device.type == "cuda":
            before = self._now()
            yield
            self._spans.append((before, self._now()))
        else:
            began = time.monotonic()
            yield
            self._seconds += time.monotonic() - began

    def take(self) -> float:
        """Seconds since the last call; waits until the GPU has passed the last batch that was fetched."""
        for before, after in self._spans:
            after.synchronize()
            self._seconds += before.elapsed_time(after) / 1000  # of milliseconds
        seconds, self._seconds = self._seconds, 0.0
        self._spans.clear()
        return seconds

    def _now(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event
