"""Arrays as JSON-serialisable fields, and their validation: a file may come from anywhere."""

from __future__ import annotations

import base64
import sys
from typing import Any

import numpy as np

MAX_FLOAT = sys.float_info.max
_DTYPES = ("|b1", "|u1", "<i2", "<i4", "<i8", "<f4", "<f8")


def encode_array(array: np.ndarray) -> dict[str, Any]:
    """Encodes an array as JSON-serialisable fields: dtype, shape and base64 of its little-endian bytes."""
    array = np.ascontiguousarray(array)
    array = array.astype(array.dtype.newbyteorder("<"))
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode()}


def decode_array(record: dict[str, Any]) -> np.ndarray:
    """Decodes what ``encode_array`` returned. Raises: KeyError, TypeError, ValueError: invalid record."""
    if record["dtype"] not in _DTYPES:
        raise ValueError(f"dtype {str(record['dtype'])[:20]!r}, expected one of {', '.join(_DTYPES)}")
    array = np.frombuffer(base64.b64decode(record["data"]), np.dtype(record["dtype"])).reshape(record["shape"]).copy()
    if array.dtype == bool and array.size and array.view(np.uint8).max() > 1:
        raise ValueError("a byte of a truth value is neither 0 nor 1")
    return array


def check_array(
    name: str, array: np.ndarray, kinds: str, shape: tuple[int, ...], low: float = -MAX_FLOAT, high: float = MAX_FLOAT
) -> None:
    """Validates kind (``dtype.kind``), shape and range (both ends included) of an array. Raises: ValueError."""
    if array.dtype.kind not in kinds or array.shape != shape:
        raise ValueError(f"{name}: {array.dtype} of shape {array.shape}, expected shape {shape} of kind {kinds}")
    if array.size and not (low <= float(array.min()) and float(array.max()) <= high):
        raise ValueError(f"{name}: a value is NaN or outside {low:g} to {high:g}")
