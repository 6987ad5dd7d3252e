"""Progress on stderr: a tqdm bar on a terminal, plain lines in a log file."""

from __future__ import annotations

import shutil
import sys
import threading

from tqdm import tqdm

from shards.messages import print_stderr

TERMINAL_INTERVAL_S, LOG_INTERVAL_S = 0.2, 10.0
LINE_CHARS = 1000  # in a log file


class Progress(tqdm):
    """A tqdm bar for a known amount of work.

    On a terminal the bar is live. In a log file, where tqdm would repeat the bar after carriage returns, it is one
    line every 10 s and one line at the end.
    """

    monitor_interval = 0  # no monitor thread: every update checks the clock
    _lock = threading.RLock()  # tqdm's default lock also fixes the start method of the caller's multiprocessing

    def __init__(self, label: str, total: int, unit: str = "images", *, live: bool = True) -> None:
        """
        Args:
            unit: plural noun, or ``B`` for bytes.
            live: False: lines on a terminal, too, where others print at the same time.
        """
        self._is_terminal = live and sys.stderr.isatty()
        screen = shutil.get_terminal_size()  # tqdm shows nothing on a terminal of unknown size; here it is 80 x 24
        noun = unit.removesuffix("s") if total == 1 else unit
        count = "{n_fmt}B/{total_fmt}B" if unit == "B" else f"{{n:,}}/{{total:,}} {noun}"
        tail = f"{count} [{{elapsed}}<{{remaining}}, {{rate_noinv_fmt}}]"
        super().__init__(
            desc=label,
            total=total,
            unit=unit if unit == "B" else f" {unit}",
            unit_scale=unit == "B",
            file=sys.stderr,
            gui=not self._is_terminal,  # tqdm: this class overrides display()
            mininterval=TERMINAL_INTERVAL_S if self._is_terminal else LOG_INTERVAL_S,
            miniters=1,
            ncols=screen.columns - 1 if self._is_terminal else LINE_CHARS,
            nrows=screen.lines,
            smoothing=0,  # the mean rate: shards and identities arrive in bursts
            bar_format=f"{{l_bar}}{{bar}}| {tail}" if self._is_terminal else f"{{desc}}: {tail}",
        )

    def skip(self, count: int) -> None:
        """Counts work done by an earlier run: moves the bar, not the rate."""
        self.initial += count
        self.last_print_n += count
        self.n += count

    def print_line(self, line: str) -> None:
        """Prints a line, above the bar."""
        if self._is_terminal:
            self.clear()
        print_stderr(line)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draws the bar, or prints its line in a log file."""
        if self._is_terminal:
            super().display(msg, pos)
        else:
            print_stderr(str(self))

    def close(self) -> None:
        """Draws the bar for the last time."""
        if not self._is_terminal and not self.disable:
            self.display()
        super().close()

    def __del__(self) -> None:
        """Does nothing: ``with`` closes the bar, and tqdm cannot close one that an interruption left half built."""
