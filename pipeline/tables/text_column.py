"""A column of text that grows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

MAX_BYTES = (1 << 31) - 1  # offsets of a StringArray are int32


class TextColumn:
    """Joins arrays of text. Takes the memory of the result; ``pa.concat_arrays`` would need the arrays beside it."""

    def __init__(self, max_rows: int) -> None:
        self._ends = np.zeros(max_rows + 1, np.int32)  # memory of unused rows is never touched
        self._text = bytearray()  # grows in place: large blocks of memory are moved by the kernel, not copied
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def append(self, texts: pa.StringArray) -> bool:
        """Adds texts, none of them null; returns False if that would be more than ``MAX_BYTES`` in all."""
        _, offsets, text = texts.buffers()
        if len(texts) == 0:
            return True
        ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
        start, length = int(ends[0]), len(self._text)
        if length + int(ends[-1]) - start > MAX_BYTES:
            return False
        self._ends[self._rows + 1 : self._rows + len(texts) + 1] = ends[1:] - np.int32(start) + np.int32(length)
        if text is not None:
            self._text += memoryview(text)[start : ends[-1]]
        self._rows += len(texts)
        return True

    def array(self) -> pa.StringArray:
        """The joined array; shares memory with this column, to which nothing can be added from now on."""
        ends = pa.py_buffer(self._ends[: self._rows + 1])
        return pa.StringArray.from_buffers(self._rows, ends, pa.py_buffer(self._text))
