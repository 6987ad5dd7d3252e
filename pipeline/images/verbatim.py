"""Finds JPEGs that can be stored as they are."""

from __future__ import annotations

import cv2
import numpy as np
import simplejpeg

from pipeline.images import jpeg, jpeg_damage

_FRAMES = (jpeg.BASELINE, jpeg.EXTENDED, jpeg.PROGRESSIVE)  # sequential and progressive, with Huffman codes
_JFIF = jpeg.START + b"\xff\xe0"
_METADATA_BYTES = 1 << 16


def is_storable(data: bytes, side: int) -> bool:
    """Returns True if every decoder reads a file as the same pixels, so that it can be stored without encoding it again.

    It is a sound JPEG of ``side`` x ``side`` px with one component or YCbCr (JFIF says so), ends where it should, and is not
    turned by EXIF data. Nor is it swollen by metadata: a batch takes the memory of its longest file for each image.
    """
    if not data.startswith(_JFIF) or data[6:11] != b"JFIF\0" or not data.endswith(jpeg.END):
        return False
    if len(data) > 4 * side * side + _METADATA_BYTES:
        return False
    try:
        header = jpeg.read_header(data)
        if (header.width, header.height) != (side, side):
            return False
        if header.frame not in _FRAMES or header.components not in (1, 3):
            return False
        jpeg_damage.check_length(data, header)
        jpeg_damage.check_complete(data, header)
        if jpeg_damage.passed_text_mode(data, header.scan):
            return False
        pixels = simplejpeg.decode_jpeg(data, "GRAY")
        return not header.may_turn or _equals_upright(data, pixels[..., 0])
    except (ValueError, cv2.error):  # damaged, or odd: `decode_bytes` tells
        return False


def _equals_upright(data: bytes, pixels: np.ndarray) -> bool:
    """Returns True if the grey pixels of a JPEG are the same after the rotation that its EXIF data ask for."""
    upright = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    return upright is not None and np.array_equal(upright, pixels)
