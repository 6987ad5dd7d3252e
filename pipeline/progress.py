"""A progress line on stderr: done, total, rate, time left."""

from __future__ import annotations

import sys
import time

_TERMINAL_S, _LOG_S = 0.2, 10.0  # seconds between lines on a terminal and in a log file


class Progress:
    """Counts work of one kind; ``update`` prints now and then, ``close`` prints the last line."""

    def __init__(self, label: str, total: int, unit: str = "images") -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done, self._counted, self._start = 0, 0, time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._next = self._start + (_TERMINAL_S if self._terminal else _LOG_S)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def skip(self, count: int) -> None:
        """Counts work that was done before: it moves the bar, not the rate."""
        self._done += count

    def update(self, count: int = 1) -> None:
        """Counts ``count`` more."""
        self._done += count
        self._counted += count
        now = time.monotonic()
        if now >= self._next:
            self._print(now, end="\r" if self._terminal else "\n")
            self._next = now + (_TERMINAL_S if self._terminal else _LOG_S)

    def close(self) -> None:
        """Prints where it ended."""
        self._print(time.monotonic(), end="\n")

    def _print(self, now: float, end: str) -> None:
        rate = self._counted / max(now - self._start, 1e-9)
        left = (self._total - self._done) / rate if rate else float("inf")
        eta = f", ETA {_clock(left)}" if 0 < left < float("inf") else f" in {_clock(now - self._start)}"
        line = f"{self._label}: {self._done:,}/{self._total:,} {self._unit}, {rate:,.0f} {self._unit}/s{eta}"
        print(f"{line:<78}" if self._terminal else line, end=end, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    whole = int(seconds + 0.5)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
