"""RunLog: writes a run's metrics to stderr, ``metrics.jsonl`` and TensorBoard."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch

from model.training.waiting import LoaderWait
from shards.files import naming, write_bytes
from shards.messages import print_stderr

METRICS = "metrics.jsonl"


class RunLog:
    """Logs metrics, with images/s and the fraction of time spent waiting for the loader. A context manager.

    On entry, drops the rows of steps that a resumed run will repeat.

    Args:
        run: the run folder; None to write nothing, on ranks other than the first.
        device: where the network is trained.
    """

    def __init__(self, run: Path | None, *, steps: int, start: int, device: torch.device) -> None:
        self._run, self._steps, self._start = run, steps, start
        self._images, self._wait = 0, LoaderWait(device)

    def __enter__(self) -> RunLog:
        if self._run is not None:
            from torch.utils.tensorboard import SummaryWriter  # imports slowly

            drop_rows(self._run / METRICS, after=self._start)
            with naming(self._run):
                self._json = open(self._run / METRICS, "a")
                self._board = SummaryWriter(str(self._run / "tensorboard"), purge_step=self._start + 1)
        self._since = self._began = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        if self._run is not None:
            with naming(self._run):
                self._json.close()
                self._board.close()

    def waiting(self) -> contextlib.AbstractContextManager[None]:
        """Counts the time of the block, in which a batch is fetched, as waiting for the loader."""
        return self._wait.measured()

    def count(self, images: int) -> None:
        """Counts the images of a step."""
        self._images += images

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Excludes the time of the block from images/s and loader wait, but not from the ETA."""
        before = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - before
            if self._since == self._began:  # no line yet: the ETA, extrapolated from a few steps, would be days
                self._began += spent
            self._since += spent

    def scalars(self, step: int, metrics: dict[str, float]) -> None:
        """Writes ``metrics`` of update number ``step``, counted from 1, to TensorBoard."""
        assert self._run is not None
        with naming(self._run / "tensorboard"):
            for name, value in metrics.items():
                self._board.add_scalar(name, value, step)

    def write(
        self,
        step: int,
        metrics: Mapping[str, float | torch.Tensor],
        mean: Callable[[torch.Tensor], torch.Tensor] = lambda value: value,
    ) -> None:
        """Logs ``metrics`` after update number ``step``, counted from 1, with images/s and loader wait.

        Args:
            metrics: numbers or scalar tensors; reading a tensor synchronises with the device.
            mean: averages a tensor over all ranks; called for every tensor on every rank.
        """
        values = {
            name: mean(metric).item() if isinstance(metric, torch.Tensor) else metric
            for name, metric in metrics.items()
        }
        waited = self._wait.take()  # the device has been waited for: no further cost
        if self._run is None:
            return
        now = time.monotonic()
        elapsed = max(now - self._since, 1e-9)
        row = {"step": step, **values, "images_per_s": self._images / elapsed, "loader_wait": waited / elapsed}
        self._since, self._images = now, 0
        with naming(self._run / METRICS):
            self._json.write(json.dumps(row) + "\n")
            self._json.flush()
        self.scalars(step, {name: value for name, value in row.items() if name != "step"})
        left = (now - self._began) / max(step - self._start, 1) * (self._steps - step)
        rate = row["images_per_s"]
        speed = f"{rate:.0f}" if rate >= 1 else f"{rate:.2g}"  # a large network on a CPU
        parts = "  ".join(
            f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}"
            for name, value in values.items()
            if name != "lr"
        )
        print_stderr(
            f"step {step}/{self._steps}  {parts}  lr {values['lr']:g}  {speed} images/s"
            f"  loader wait {row['loader_wait']:.1%}  ETA {int(left) // 3600}:{int(left) // 60 % 60:02d}:{int(left) % 60:02d}"
        )


def drop_rows(path: Path, *, after: int) -> list[dict[str, float]]:
    """Removes damaged rows and rows of steps after ``after`` from a metrics file; returns the remaining rows."""
    rows = [row for row in read_metrics(path) if row["step"] <= after]
    if path.exists():
        write_bytes(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return rows


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics file up to the first damaged one; a killed run may leave a partial last row."""
    rows = []
    with contextlib.suppress(ValueError, TypeError, LookupError, RecursionError):
        for line in path.read_text(errors="replace").splitlines() if path.is_file() else []:
            row = json.loads(line)
            if type(row["step"]) is not int or any(isinstance(value, dict | list) for value in row.values()):
                break
            rows.append({"step": row["step"], **row})
    return rows
