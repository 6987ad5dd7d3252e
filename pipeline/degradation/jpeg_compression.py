"""JPEG compression of batches on their device, as libjpeg does it at its defaults (4:2:0), without the entropy coding.

Entropy coding loses nothing, so what is left out changes no pixel. All sums are of integers that float32 represents
exactly: a result depends neither on the other images of the batch nor on the order of additions.

Source: Recommendation ITU-T T.81, 1992 (DCT, tables K.1 and K.2); libjpeg's documentation (scale of the tables, box filter
that halves the chroma planes, triangle filter that doubles them).
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import torch

BLOCK = 8  # px
MCU = 16  # px, of a 4:2:0 image: four blocks of luma, one of each chroma
WEIGHT = 1 << 12  # weights of the transforms are integers in units of 1/4096
FRACTION = 4  # between two transforms, values are integers in units of a quarter
_COEFFICIENT = 1448  # largest value between the transforms, 128 * sqrt(8), in quarters: keeps sums exact
# Table K.1 and K.2 of T.81
_LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    *(17, 18, 24, 47, 99, 99, 99, 99),
    *(18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99),
    *(99,) * 32,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Transforms:
    """Matrices for planes of M px, for each place of the grid of blocks; ``offsets`` places, ``L`` coefficients a line.

    Attributes:
        rows, columns: (offsets, 2, L, M), the forward transform, which also halves chroma and repeats the edge beyond the
            plane; and the inverse one, transposed. ``rows`` gives quarters of a level, ``columns`` takes them.
        steps: (101, L, L), the divisor of each coefficient at quality 0 to 100.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    steps: torch.Tensor


def compress_(
    planes: torch.Tensor, *, quality: torch.Tensor, row_offsets: torch.Tensor, column_offsets: torch.Tensor
) -> None:
    """Compresses images as JPEG and decompresses them again, in place.

    Args:
        planes: (3, N, M, M) float32 Y, Cb, Cr, whole numbers, 0 to 255 and -128 to 127; M a multiple of 8 px.
        quality: (N,) int64, 1 to 100, as libjpeg scales it.
        row_offsets, column_offsets: (N,) int64, 0 to 15 px: where in an MCU of the whole picture the image begins.
    """
    size, device = planes.shape[-1], planes.device
    luma, chroma = _luma_transforms(size, device), _chroma_transforms(size, device)
    brightness = planes[0].sub_(128)
    _round_trip_(brightness, luma, quality, row_offsets % BLOCK, column_offsets % BLOCK)
    brightness.add_(128)
    twice = (torch.cat([each, each]) for each in (quality, row_offsets, column_offsets))
    _round_trip_(planes[1:].flatten(0, 1), chroma, *twice)


def _round_trip_(
    plane: torch.Tensor, transforms: _Transforms, quality: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> None:
    """Transforms, quantises and transforms back (N, M, M) planes of whole numbers from -128 to 127, in place."""
    forward, inverse = transforms.rows.index_select(0, rows).unbind(1)
    forward_columns, inverse_columns = transforms.columns.index_select(0, columns).unbind(1)
    steps = transforms.steps.index_select(0, quality)
    half = torch.bmm(forward, plane).round_()
    found = torch.bmm(half, forward_columns.mT).div_(steps).round_().mul_(steps)
    half = torch.bmm(inverse.mT, found).round_().clamp_(-_COEFFICIENT, _COEFFICIENT)
    torch.clamp(torch.bmm(half, inverse_columns).round_(), -128, 127, out=plane)


@functools.lru_cache(maxsize=16)
def _luma_transforms(size: int, device: torch.device) -> _Transforms:
    length = size + BLOCK  # of blocks that cover the image wherever the grid lies
    place = np.arange(length)
    offsets = np.arange(BLOCK)[:, None]
    repeated = np.eye(size)[np.clip(place - offsets, 0, size - 1)]  # (offsets, length, size)
    cropped = np.eye(length)[np.arange(size) + offsets]  # (offsets, size, length)
    return _transforms(repeated, cropped, _LUMA, device)


@functools.lru_cache(maxsize=16)
def _chroma_transforms(size: int, device: torch.device) -> _Transforms:
    length = -(-(size + MCU) // MCU) * BLOCK
    eye, halved = np.eye(size), np.arange(length)
    offsets = np.arange(MCU)[:, None]
    pixels = np.arange(size) + offsets  # (offsets, size), in px of the whole picture
    repeated = sum(eye[np.clip(2 * halved + odd - offsets, 0, size - 1)] for odd in (0, 1)) / 2
    small = np.eye(length)
    near, far = small[pixels // 2], small[np.clip(pixels // 2 + pixels % 2 * 2 - 1, 0, length - 1)]
    return _transforms(repeated, near * 0.75 + far * 0.25, _CHROMA, device)


def _transforms(before: np.ndarray, after: np.ndarray, table: tuple[int, ...], device: torch.device) -> _Transforms:
    """Joins the transform of blocks with what comes ``before`` it, and ``after`` its inverse."""
    length = before.shape[1]
    blocks = np.kron(np.eye(length // BLOCK), _dct())
    tiles = (length // BLOCK, length // BLOCK)
    steps = np.stack([np.tile(quantisation(table, quality), tiles) for quality in range(101)])
    whole = np.rint(np.stack([blocks @ before, (after @ blocks.T).transpose(0, 2, 1)], 1) * WEIGHT)
    arrays = {"rows": whole * (FRACTION / WEIGHT), "columns": whole / (FRACTION * WEIGHT), "steps": steps}  # exact
    return _Transforms(**{name: torch.from_numpy(one.astype(np.float32)).to(device) for name, one in arrays.items()})


def quantisation(table: tuple[int, ...], quality: int) -> np.ndarray:
    """(8, 8) int64 divisors at a ``quality``; 0 is taken as 1."""
    scale = 5000 // max(quality, 1) if quality < 50 else 200 - 2 * quality
    return np.clip((np.array(table).reshape(BLOCK, BLOCK) * scale + 50) // 100, 1, 255)


def _dct() -> np.ndarray:
    """(8, 8) orthonormal DCT-II: rows are frequencies."""
    frequency, place = np.mgrid[:BLOCK, :BLOCK]
    cosines = np.cos((2 * place + 1) * frequency * np.pi / (2 * BLOCK)) / 2
    return np.where(frequency == 0, np.sqrt(1 / BLOCK), cosines)
