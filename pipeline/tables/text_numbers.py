"""Numbers in text tables, with a decimal point or comma."""

from __future__ import annotations

import contextlib

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def is_number(text: str) -> bool:
    """Returns True for what ``float`` takes, also with a decimal comma."""
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def text_numbers(texts: pa.Array) -> np.ndarray:
    """(n,) float64 of texts, which may have a decimal comma; NaN for what is not a number."""
    if len(texts) and "," in texts[0].as_py():  # in all rows, mostly; a cast that fails takes several times as long
        texts = _point_for_comma(texts)
    for change in (None, _none_for_empty, _point_for_comma):
        texts = change(texts) if change else texts
        with contextlib.suppress(pa.ArrowInvalid):
            return np.asarray(pc.cast(texts, pa.float64()).to_numpy(zero_copy_only=False))
    return np.array([float(text) if text and is_number(text) else np.nan for text in texts.to_pylist()])


def _point_for_comma(texts: pa.Array) -> pa.Array:
    return pc.replace_substring(texts, ",", ".")


def _none_for_empty(texts: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
