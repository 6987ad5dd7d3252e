"""Tells JPEGs that can be stored as they are."""

from __future__ import annotations

import simplejpeg

from pipeline.sources import jpeg

_FRAMES = (0xC0, 0xC1, 0xC2)  # sequential and progressive, with Huffman codes
_JFIF = b"\xff\xd8\xff\xe0"


def is_storable(data: bytes, side: int) -> bool:
    """Returns True if every decoder reads a file as the same pixels, so that it can be stored without encoding it again.

    It is a sound JPEG of ``side`` x ``side`` px with one component or YCbCr (JFIF says so), and has no EXIF data, which may
    ask for a rotation.
    """
    if not data.startswith(_JFIF) or data[6:11] != b"JFIF\0":
        return False
    try:
        header = jpeg.read_header(data)
        if (header.width, header.height) != (side, side) or header.has_exif:
            return False
        if header.frame not in _FRAMES or header.components not in (1, 3):
            return False
        jpeg.check_length(data, header)
        jpeg.check_complete(data, header)
        if jpeg.passed_text_mode(data, header.scan):
            return False
        simplejpeg.decode_jpeg(data, "GRAY")
    except ValueError:  # damaged, or odd: `decode_bytes` tells
        return False
    return True
