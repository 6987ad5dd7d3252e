"""Values of some rows of a long table."""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Generic, TypeVar

Value = TypeVar("Value", bound=Hashable)
Other = TypeVar("Other", bound=Hashable)


class RowValues(Mapping[int, Value], Generic[Value]):
    """Row -> value, for rows that are added in ascending order, and few different values.

    An entry takes 12 bytes: a dict would take 200 for a text that is read from a file.
    """

    def __init__(self) -> None:
        self._rows, self._codes = array("q"), array("i")
        self._values: list[Value] = []  # by code
        self._known: dict[Value, int] = {}  # value -> code

    def append(self, row: int, value: Value) -> None:
        """Adds a row, which must be larger than those before."""
        code = self._known.setdefault(value, len(self._values))
        if code == len(self._values):
            self._values.append(value)
        self._rows.append(row)
        self._codes.append(code)

    def each(self, function: Callable[[Value], Other]) -> RowValues[Other]:
        """The same rows with other values; shares their memory, so that nothing can be added to it."""
        result: RowValues[Other] = RowValues()
        result._rows, result._codes, result._values = self._rows, self._codes, list(map(function, self._values))
        return result

    def __getitem__(self, row: int) -> Value:
        place = bisect.bisect_left(self._rows, row)
        if place == len(self._rows) or self._rows[place] != row:
            raise KeyError(row)
        return self._values[self._codes[place]]

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)
