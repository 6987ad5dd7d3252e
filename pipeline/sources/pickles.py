"""Reads what a pickle describes, and runs nothing of it: no module is imported, no function is called.

Python's own unpickler runs what a file names, and takes any amount of memory that a few bytes ask for. This reader knows
lists, tuples, numbers and text. Of bytes it notes where they lie in the file. A call becomes a ``Call``, and only names
that the caller expects may stand in one.

Source: the opcodes, which Python's ``pickletools`` documents and parses.
"""

from __future__ import annotations

import dataclasses
import pickletools
from collections.abc import Collection
from typing import Any, BinaryIO

import xxhash

from shards.messages import printable

MAX_OPERATIONS = 1 << 21  # in one pickle; each takes some bytes of memory and a microsecond
HEAD_BYTES = 64  # of bytes and text that are kept in memory
MAX_LINE_BYTES = 1 << 12
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "BINSTRING", "SHORT_BINSTRING"}
_TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_LENGTHS = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class PickleError(Exception):
    """A pickle that is damaged, too long, or holds something unexpected."""


@dataclasses.dataclass(frozen=True, slots=True)
class Blob:
    """Bytes or text in a pickle.

    Attributes:
        offset: of the first byte within the file.
        size: in bytes of the file.
        is_text: it is text, in UTF-8.
        digest: XXH3-128 of the bytes; of text, of the bytes that its characters stand for.
        head: the first bytes, or characters of text.
    """

    offset: int
    size: int
    is_text: bool
    digest: bytes
    head: bytes | str


@dataclasses.dataclass(slots=True)
class Call:
    """A call that Python would make: ``name(*args)``, then the state that it would set."""

    name: str
    args: Any
    state: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Name:
    """A function or class that the pickle names."""

    name: str


def read_pickle(stream: BinaryIO, *, names: Collection[str], max_bytes: int) -> Any:
    """Reads the pickle at the start of a file.

    Args:
        names: what the pickle may name, ``module.name``.
        max_bytes: of bytes or text in it.

    Returns:
        What it describes: lists, tuples, numbers, truth values, None, ``Blob`` and ``Call``.

    Raises:
        PickleError: damaged, too long, or something else in it.
        OSError: the file cannot be read.
    """
    bounded = _BoundedStream(stream, max_bytes)
    machine = _Machine(names)
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(bounded)):  # type: ignore[arg-type]
            if count == MAX_OPERATIONS:
                raise PickleError(f"more than {MAX_OPERATIONS:,} operations")
            if opcode.name == "STOP":
                break
            try:
                machine.apply(opcode.name, argument, bounded.tell())
            except (IndexError, KeyError):
                raise PickleError(f"damaged at byte {position:,}") from None
    except (ValueError, OverflowError) as error:  # of pickletools
        raise PickleError(f"damaged at byte {bounded.tell():,} ({str(error)[:90]})") from None
    return machine.top()


class _BoundedStream:
    """What ``pickletools`` reads from; it would allocate whatever size a file states."""

    def __init__(self, stream: BinaryIO, max_bytes: int) -> None:
        self._stream, self._max_bytes = stream, max_bytes
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        if size > self._max_bytes:
            raise PickleError(f"states {size:,} bytes in one piece, at most {self._max_bytes:,} are read")
        return self._stream.read(size)

    def readline(self) -> bytes:
        return self._stream.readline(MAX_LINE_BYTES)


class _Machine:
    """The stack and the memo of an unpickler."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def top(self) -> Any:
        """What the pickle describes, at its end."""
        if len(self._stack) != 1:
            raise PickleError("damaged at its end")
        return self._stack[0]

    def apply(self, name: str, argument: Any, end: int) -> None:
        """Carries out one operation.

        Args:
            argument: as ``pickletools`` gives it.
            end: position in the file after the argument.

        Raises:
            PickleError: an operation that no list, tuple, number, text or bytes needs.
            LookupError: there is nothing on the stack or in the memo.
        """
        if name in _NUMBERS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _BYTES or name in _TEXTS:
            self._stack.append(_blob(argument, end, is_text=name in _TEXTS))
        elif name in _LENGTHS:
            self._stack.append(tuple(self._pop(_LENGTHS[name])))
        else:
            self._operate(name, argument)

    def _operate(self, name: str, argument: Any) -> None:
        """Carries out an operation on the stack or the memo."""
        match name:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                self._marks.append(len(self._stack))
            case "MEMOIZE":
                self._memo[len(self._memo)] = self._stack[-1]
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = self._stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                self._stack.append(self._memo[argument])
            case "EMPTY_LIST":
                self._stack.append([])
            case "LIST":
                self._stack.append(self._pop_to_mark())
            case "TUPLE":
                self._stack.append(tuple(self._pop_to_mark()))
            case "APPEND":
                self._extend(self._pop(1))
            case "APPENDS":
                self._extend(self._pop_to_mark())
            case "GLOBAL":
                self._push_name(argument.replace(" ", "."))
            case "STACK_GLOBAL":
                self._push_name(".".join(str(part.head) if isinstance(part, Blob) else "" for part in self._pop(2)))
            case "REDUCE":
                self._reduce()
            case "BUILD":
                self._build()
            case "STRING" | "UNICODE":
                raise PickleError("its strings are text (protocol 0); write it again with protocol 2 or higher")
            case _:
                raise PickleError(f"holds something else than lists, tuples, bytes and numbers ({name})")

    def _pop(self, count: int) -> list[Any]:
        """Takes ``count`` values from the stack, not beyond the last mark."""
        start = len(self._stack) - count
        if start < (self._marks[-1] if self._marks else 0):
            raise IndexError
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _pop_to_mark(self) -> list[Any]:
        return self._pop(len(self._stack) - self._marks.pop())

    def _extend(self, values: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise IndexError
        self._stack[-1].extend(values)

    def _push_name(self, name: str) -> None:
        if name not in self._names:
            raise PickleError(
                f"names {printable(name[:80])}, which has no place in it; do not open it with Python's pickle"
            )
        self._stack.append(_Name(name))

    def _reduce(self) -> None:
        function, args = self._pop(2)
        if not isinstance(function, _Name) or not isinstance(args, tuple):
            raise IndexError
        self._stack.append(Call(function.name, args))

    def _build(self) -> None:
        (state,) = self._pop(1)
        if not isinstance(self._stack[-1], Call):
            raise IndexError
        self._stack[-1].state = state


def _blob(argument: bytes | str, end: int, *, is_text: bool) -> Blob:
    """Bytes or text that end at a position of the file; ``pickletools`` gives the bytes of Python 2 as Latin-1."""
    if isinstance(argument, bytes | bytearray):
        data, size = bytes(argument), len(argument)
    else:
        data = argument.encode("latin-1", "replace")
        size = len(argument.encode("utf-8", "surrogatepass")) if is_text else len(data)
    head = argument[:HEAD_BYTES] if is_text else data[:HEAD_BYTES]
    return Blob(end - size, size, is_text, xxhash.xxh3_128_digest(data), head)
