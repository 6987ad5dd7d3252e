"""Reads insightface's ``.bin`` files of verification pairs: LFW, CFP-FP, AgeDB-30, CALFW, CPLFW and others.

Such a file is a pickle of two lists: 2 N image files, and N truth values that say whether images 2 i and 2 i + 1 show the
same person. The image files are bytes, or NumPy arrays of bytes as OpenCV's encoder returns them.

Source: insightface's tools that write them (``lfw2pack.py`` and others), with any version of Python and NumPy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.images.decode import MAX_PIXELS, ImageError, bytes_limit
from pipeline.images.file_part import FilePart, read_range
from pipeline.sources.pickles import Blob, Call, PickleError, read_pickle
from shards.errors import LrfrError
from shards.files import open_regular
from shards.messages import counted

_NUMPY = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")
_NAMES = {f"{module}.{name}" for module in _NUMPY for name in ("_reconstruct", "_frombuffer", "scalar")}
_NAMES |= {"_codecs.encode", "numpy.ndarray", "numpy.dtype"}
MAX_DIMENSIONS = 4
_ZIP = b"PK\x03\x04"
_STARTS = (b"\x80", b"(", b"]")  # a protocol, or a tuple or list of the first two protocols
_EXPECTED = "expected a pickle of a list of image files and a list of truth values, such as insightface's lfw.bin"


class BinError(LrfrError):
    """A ``.bin`` file of pairs that cannot be read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BinPairs:
    """The pairs of a ``.bin`` file.

    Attributes:
        images: 2 N image files; 2 i and 2 i + 1 are a pair.
        genuine: (N,) bool, whether a pair shows one person.
    """

    images: list[FilePart]
    genuine: np.ndarray


def read_bin(path: Path) -> BinPairs:
    """Reads where the images of a ``.bin`` file lie, and which pairs are genuine. Runs nothing that the file holds.

    Raises:
        BinError: the file cannot be read, is damaged, or holds something else.
    """
    try:
        with open_regular(path) as stream:
            start = stream.read(len(_ZIP))
            if start == _ZIP:
                raise BinError(f"{path}: a zip file, as PyTorch writes checkpoints; {_EXPECTED}")
            if start[:1] not in _STARTS:
                raise BinError(f"{path}: {'no pickle' if start else 'empty'}; {_EXPECTED}")
            stream.seek(0)
            found = read_pickle(stream, names=_NAMES, max_bytes=bytes_limit(MAX_PIXELS))
        images, flags = _two_lists(found)
        parts = [_image(value, number) for number, value in enumerate(images, 1)]
        genuine = _flags(flags, path)
    except OSError as error:
        raise BinError(f"{path}: {error.strerror}; {_EXPECTED}") from None
    except (PickleError, ImageError) as error:
        raise BinError(f"{path}: {error}; {_EXPECTED}") from None
    if not parts or len(parts) != 2 * len(genuine):
        raise BinError(
            f"{path}: {counted(len(parts), 'image')} and {counted(len(genuine), 'truth value')}, expected two images for"
            " each"
        )
    return BinPairs(images=parts, genuine=genuine)


def _two_lists(value: Any) -> tuple[Sequence[Any], Any]:
    if not isinstance(value, tuple | list) or len(value) != 2 or not isinstance(value[0], tuple | list):
        found = f"{type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else type(value).__name__
        raise PickleError(f"holds a {found}")
    return value[0], value[1]


def _image(value: Any, number: int) -> FilePart:
    blob = _bytes(value)
    if blob is None:
        raise PickleError(f"image {number} is neither bytes nor an array of them")
    return FilePart(number=number, offset=blob.offset, size=blob.size, digest=blob.digest, as_text=blob.is_text)


def _bytes(value: Any, kinds: Sequence[str] = ("u1",)) -> Blob | None:
    """The bytes that a value stands for: bytes, their text form, or an array in one dimension; None for others.

    Args:
        kinds: of arrays, as NumPy names them.
    """
    if isinstance(value, Blob):
        return None if value.is_text else value
    if not isinstance(value, Call):
        return None
    match value.name.rpartition(".")[2], value.args, value.state:
        case "encode", (Blob(is_text=True) as text, codec), None if _word(codec) == "latin1":
            return text
        case "_reconstruct", _, (_, shape, kind, _, data) if _kind(kind) in kinds and _is_flat(shape):
            return _content(data)
        case "_frombuffer", (data, kind, shape, _), None if _kind(kind) in kinds and _is_flat(shape):
            return _content(data)
    return None


def _content(value: Any) -> Blob | None:
    """The bytes of an array; an array has no array in it."""
    return None if isinstance(value, Call) and not value.name.endswith(".encode") else _bytes(value)


def _is_flat(shape: Any) -> bool:
    """True for one dimension, or one and others of a single element, as OpenCV before 4.5.4 has them."""
    sizes = shape if isinstance(shape, tuple) else (shape,)
    return (
        1 <= len(sizes) <= MAX_DIMENSIONS
        and all(type(size) is int for size in sizes)
        and math.prod(sizes) == max(sizes)
    )


def _kind(value: Any) -> str:
    """The kind of a NumPy dtype, such as ``u1``."""
    return _word(value.args[0]).lstrip("|") if isinstance(value, Call) and value.args else ""


def _word(value: Any) -> str:
    """A short text, or the same in bytes as Python 2 has it."""
    if not isinstance(value, Blob):
        return ""
    return value.head if isinstance(value.head, str) else value.head.decode("latin-1")


def _flags(value: Any, path: Path) -> np.ndarray:
    """(N,) bool from a list of truth values, of 0 and 1, or an array of them."""
    if (blob := _bytes(value, ("b1", "u1"))) is not None:
        data = read_range(path, blob.offset, blob.size)
        data = data.decode("utf-8", "replace").encode("latin-1", "replace") if blob.is_text else data
        flags = list(data)
    elif isinstance(value, tuple | list):
        flags = [_flag(one) for one in value]
    else:
        raise PickleError("its second part is not a list")
    wrong = next((row for row, flag in enumerate(flags, 1) if flag not in (0, 1)), None)
    if wrong:
        raise PickleError(f"truth value {wrong} is neither True nor False")
    return np.array(flags, bool)


def _flag(value: Any) -> Any:
    """A truth value as an int; None for anything else."""
    if isinstance(value, int):
        return value
    match value:
        case Call(args=(kind, data)) if value.name.endswith(".scalar") and _kind(kind) == "b1":
            head = _word(_bytes(data))
            return ord(head) if len(head) == 1 else None
    return None
