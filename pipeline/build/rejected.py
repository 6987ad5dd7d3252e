"""Which rows of a plan are not stored, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np

DUPLICATE_KEY = "duplicate-key"
_STORED, _DUPLICATE = 0, -1  # codes of a row; others are positions of its reason, from 1


class Rejected(Mapping[int, tuple[str, str]]):
    """Row -> (status, reason) of the rows that are not stored.

    Takes 4 bytes for each of the N rows, whatever is rejected: a dict would take 200 for each rejected one.
    """

    def __init__(self, rows: int) -> None:
        self._codes = np.zeros(rows, np.int32)
        self._reasons: dict[tuple[str, str], int] = {}  # reason -> code
        self._by_code: list[tuple[str, str]] = []
        self._duplicates = self._firsts = np.empty(0, np.int64)
        self._describe: Callable[[int], str] = str

    @property
    def stored(self) -> np.ndarray:
        """(N,) bool, whether each row will be stored."""
        return self._codes == _STORED

    def update(self, problems: Mapping[int, tuple[str, str]]) -> None:
        """Rejects single rows; a row's last reason counts."""
        for row, (status, reason) in problems.items():
            self._codes[row] = self._code(status, reason)

    def add(self, rows: np.ndarray, status: str, reason: str) -> None:
        """Rejects rows for one reason.

        Args:
            rows: (n,) numbers, or (N,) bool.
        """
        self._codes[rows] = self._code(status, reason)

    def add_duplicates(self, rows: np.ndarray, firsts: np.ndarray, describe: Callable[[int], str]) -> None:
        """Rejects rows with the key of an earlier row; called once.

        Args:
            rows: (n,) numbers.
            firsts: (n,) the earlier row of each.
            describe: the reason, given the earlier row. Called when it is needed: each is another text.
        """
        order = np.argsort(rows)
        self._duplicates, self._firsts, self._describe = rows[order], firsts[order], describe
        self._codes[rows] = _DUPLICATE

    def _code(self, status: str, reason: str) -> int:
        code = self._reasons.setdefault((status, reason), len(self._by_code) + 1)
        if code > len(self._by_code):
            self._by_code.append((status, reason))
        return code

    def counts(self) -> Counter[str]:
        """Number of rejected rows by status."""
        counts = Counter({DUPLICATE_KEY: int(np.count_nonzero(self._codes == _DUPLICATE))})
        rows = np.bincount(self._codes[self._codes > _STORED], minlength=len(self._by_code) + 1).tolist()
        for (status, _), number in zip(self._by_code, rows[1:], strict=True):
            counts[status] += number
        return +counts

    def __getitem__(self, row: int) -> tuple[str, str]:
        code = int(self._codes[row])
        if code == _STORED:
            raise KeyError(row)
        if code == _DUPLICATE:
            first = self._firsts[np.searchsorted(self._duplicates, row)]
            return DUPLICATE_KEY, self._describe(int(first))
        return self._by_code[code - 1]

    def __contains__(self, row: object) -> bool:
        return bool(self._codes[row] != _STORED)  # type: ignore[call-overload]

    def among(self, rows: np.ndarray) -> dict[int, tuple[str, str]]:
        """Position in ``rows`` -> (status, reason) of those that are not stored."""
        return {place: self[int(rows[place])] for place in np.flatnonzero(self._codes[rows]).tolist()}

    def __iter__(self) -> Iterator[int]:
        return iter(np.flatnonzero(self._codes).tolist())

    def __len__(self) -> int:
        return int(np.count_nonzero(self._codes))
