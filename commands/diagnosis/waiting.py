"""Progress that leaves no trace on the page."""

from __future__ import annotations

from pipeline.progress import LOG_INTERVAL_S, Progress


class Waiting(Progress):
    """A progress bar that vanishes when it is done. In a log file, only work that takes long gets lines."""

    def close(self) -> None:
        """Removes the bar."""
        self.leave = False
        if not self._is_terminal and self.format_dict["elapsed"] < LOG_INTERVAL_S:
            self.disable = True
        super().close()
        if self._is_terminal:  # tqdm leaves the cursor behind the blanks
            print("\r", end="", file=self.fp, flush=True)
