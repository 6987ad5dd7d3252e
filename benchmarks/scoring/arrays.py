"""Arrays in a JSON file, and what is required of them."""

from __future__ import annotations

import base64
import sys
from typing import Any

import numpy as np

LARGEST = sys.float_info.max
_TYPES = ("|b1", "|u1", "<i2", "<i4", "<i8", "<f4", "<f8")


def packed(array: np.ndarray) -> dict[str, Any]:
    """JSON-able: base64 of little-endian bytes."""
    array = np.ascontiguousarray(array)
    array = array.astype(array.dtype.newbyteorder("<"))
    return {"dtype": array.dtype.str, "shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode()}


def unpacked(record: dict[str, Any]) -> np.ndarray:
    """What ``packed`` made. Raises: KeyError, TypeError, ValueError: it did not."""
    if record["dtype"] not in _TYPES:
        raise ValueError(f"dtype {str(record['dtype'])[:20]!r}, expected one of {', '.join(_TYPES)}")
    return np.frombuffer(base64.b64decode(record["data"]), np.dtype(record["dtype"])).reshape(record["shape"]).copy()


def require(
    name: str, array: np.ndarray, kinds: str, shape: tuple[int, ...], low: float = -LARGEST, high: float = LARGEST
) -> None:
    """Raises: ValueError: the array is of another kind (``dtype.kind``) or shape, or a value is outside ``low..high``."""
    if array.dtype.kind not in kinds or array.shape != shape:
        raise ValueError(f"{name}: {array.dtype} of shape {array.shape}, expected shape {shape} of kind {kinds}")
    if array.size and not (low <= float(array.min()) and float(array.max()) <= high):
        raise ValueError(f"{name}: a value is not a number, or outside {low:g} to {high:g}")
