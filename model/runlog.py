"""A run's log: lines on stderr, JSON lines, TensorBoard."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from model.checkpoint import whole_file

METRICS = "metrics.jsonl"


class RunLog:
    """Writes the figures of logged steps and measures images/s and the loader's share of the time between them.

    Lines of steps that a resumed run will do again are dropped first. A context manager.
    """

    def __init__(self, run: Path, *, steps: int, start: int) -> None:
        self._run, self._steps, self._start = run, steps, start

    def __enter__(self) -> RunLog:
        from torch.utils.tensorboard import SummaryWriter  # imports slowly

        path = self._run / METRICS
        kept = "".join(json.dumps(row) + "\n" for row in read_metrics(path) if row["step"] <= self._start)
        with whole_file(path) as temporary:
            temporary.write_text(kept)
        self._json = open(path, "a")
        self._board = SummaryWriter(str(self._run / "tensorboard"), purge_step=self._start + 1)
        self._since = self._began = time.monotonic()
        self._images, self._waited = 0, 0.0
        return self

    def __exit__(self, *error: object) -> None:
        self._json.close()
        self._board.close()

    def count(self, images: int, waited: float) -> None:
        """Counts one step: its images and the seconds it waited for them."""
        self._images += images
        self._waited += waited

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Logs ``figures`` after update number ``step``, counted from 1, with images/s and loader wait."""
        now = time.monotonic()
        elapsed = max(now - self._since, 1e-9)
        row = {"step": step, **figures, "images_per_s": self._images / elapsed, "loader_wait": self._waited / elapsed}
        self._since, self._images, self._waited = now, 0, 0.0
        self._json.write(json.dumps(row) + "\n")
        self._json.flush()
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(name, value, step)
        left = (now - self._began) / max(step - self._start, 1) * (self._steps - step)
        parts = "  ".join(f"{name} {value:.4f}" for name, value in figures.items() if name != "lr")
        print(
            f"step {step}/{self._steps}  {parts}  lr {figures['lr']:g}  {row['images_per_s']:.0f} images/s"
            f"  loader wait {row['loader_wait']:.1%}  ETA {int(left) // 3600}:{int(left) // 60 % 60:02d}:{int(left) % 60:02d}",
            file=sys.stderr,
            flush=True,
        )


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics file up to the first that is damaged, as the last one of a killed run may be."""
    rows = []
    for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not isinstance(row, dict) or "step" not in row:
            break
        rows.append(row)
    return rows
