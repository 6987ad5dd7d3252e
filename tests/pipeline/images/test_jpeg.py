"""JPEGs of every kind, whole and damaged."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.images.decode import ImageError, decode


def jpeg(pixels):
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def test_a_damaged_jpeg_is_an_error(tmp_path, painted):
    good = jpeg(painted["n000001"][0][0])
    middle = len(good) // 2
    damaged = {
        "truncated": good[:middle],
        "overwritten": good[:middle] + b"\xff\x3f" * 20 + good[middle + 40 :],
        "no pixels": good[:200],
    }
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ImageError, match="damaged JPEG"):
            decode(tmp_path / name)


def test_jpegs_of_every_kind_are_decoded_as_by_opencv(tmp_path, painted):
    pixels = painted["n000001"][0][0]
    good = jpeg(pixels)
    thumbnail = b"\xff\xe1" + (len(good) + 2).to_bytes(2, "big") + good  # an APP1 segment that holds a whole JPEG
    (tmp_path / "thumbnail.jpg").write_bytes(good[:2] + thumbnail + good[2:] + b"trailing bytes")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=turned)
    Image.fromarray(pixels).convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(pixels).convert("L").save(tmp_path / "grey.jpg")
    Image.fromarray(pixels).save(tmp_path / "progressive.jpg", progressive=True, subsampling=0)
    names = sorted(path.name for path in tmp_path.glob("*.jpg"))
    assert len(names) == 5
    for name in names:
        assert np.array_equal(decode(tmp_path / name), cv2.imread(str(tmp_path / name)))
    assert decode(tmp_path / "turned.jpg").shape == (120, 150, 3)
