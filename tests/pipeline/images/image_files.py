"""Image files of every format that OpenCV reads, and ways to damage them."""

from __future__ import annotations

import base64
import io
import re
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

from pipeline.images.decode import ImageError

HEIGHT, WIDTH = 52, 44
_QUALITY = 90
_ARITHMETIC = """
/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABQODxIPDRQSEBIXFRQYHjIhHhwcHj0sLiQySUBMS0dARkVQWnNiUFVtVkVGZIhlbXd7gYKBTmCNl4x9
lnN+gXz/2wBDARUXFx4aHjshITt8U0ZTfHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHx8fHz/yQARCAA0ACwD
ASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD9H0eOB2SIKNNGcjU4+/SpkvkwcetuozPeayXQMM7PqDIyarf1hWKmWn5pX2YYcZpn
uZTpQ5zy+K1DpulsppnvYsU7Ecu93XKTdcOmjAoW4houAN9ut7CMZaxiEEUvIoW6qQ2mBorToElDSktF5jC3xB9T2/8ADRCXVpTuC+6RhqlX5MDL
tHkanahpK5gZP1vhtpkkDcK7TzgyKpjS/UNXL3b034ZOIjXx/SryVRKdvTdKO0vNjzeiaA6R9L2Rt5xUdk0uZc+7FdsnIACziXor1ucsfCNc74Yy
YkwMCUDo2bi8QAgWwernb9xg4okex7zV5sd06znIiKJiSLxek9N3i6+9KlaVlRnSU3JBkGCffyc+I4ZxnCujkR3UpsbxCMjhxMIG976FEooLWDt/
JhUEZBxpzfz96oGYxJRd5ntGRN35AjcMSv/Z
"""  # by "cjpeg -arithmetic": neither OpenCV nor Pillow writes arithmetic codes


def pixels(seed: int = 0, channels: int = 3) -> np.ndarray:
    """A smooth random image, (H, W, C) uint8, or (H, W) for one channel."""
    shape = (HEIGHT, WIDTH, channels) if channels > 1 else (HEIGHT, WIDTH)
    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


def by_pillow(format: str, mode: str = "RGB", image: np.ndarray | None = None, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels() if image is None else image).convert(mode).save(stream, format, **options)
    return stream.getvalue()


def by_opencv(suffix: str, image: np.ndarray | None = None) -> bytes:
    return cv2.imencode(suffix, pixels() if image is None else image)[1].tobytes()


def jpeg(**options) -> bytes:
    return by_pillow("JPEG", quality=_QUALITY, **options)


def read_by_opencv(data: bytes) -> np.ndarray | None:
    """(H, W, 3) uint8 BGR, or None."""
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image is not None and image.ndim == 2 else image


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def after_start(data: bytes, inserted: bytes) -> bytes:
    """Inserts bytes after a JPEG's SOI marker."""
    return data[:2] + inserted + data[2:]


def before_end(data: bytes, inserted: bytes) -> bytes:
    """Inserts bytes before a JPEG's EOI marker."""
    return data[:-2] + inserted + data[-2:]


def first_scan(data: bytes) -> tuple[int, int]:
    """Offsets of a JPEG's first SOS marker, and of the data after its segment."""
    at = data.index(b"\xff\xda")
    return at, at + 2 + int.from_bytes(data[at + 2 : at + 4])


def sampled_jpeg(factors: list[tuple[int, int]], marks: bytes = b"") -> bytes:
    """A JPEG with any sampling factors: the scans of one grey JPEG for each component.

    Args:
        factors: (horizontal, vertical) of each component.
        marks: segments to begin with, such as Adobe's.
    """
    most = [max(sides) for sides in zip(*factors, strict=True)]
    parts, scans = [], b""
    for number, (across, down) in enumerate(factors):
        side = (-(-WIDTH * across // most[0]), -(-HEIGHT * down // most[1]))
        plane = by_pillow("JPEG", "L", cv2.resize(pixels(number, 1), side), quality=_QUALITY)
        frame, (at, start) = plane.index(b"\xff\xc0"), first_scan(plane)
        parts.append((plane[plane.index(b"\xff\xdb") : frame], plane[plane.index(b"\xff\xc4") : at]))
        scans += segment(0xDA, bytes([1, number + 1, 0, 0, 63, 0])) + plane[start:-2]
    quantisation, codes = parts[0]
    components = b"".join(bytes([n, across << 4 | down, 0]) for n, (across, down) in enumerate(factors, 1))
    frame = segment(0xC0, struct.pack(">BHHB", 8, HEIGHT, WIDTH, len(factors)) + components)
    return b"\xff\xd8" + marks + quantisation + frame + codes + scans + b"\xff\xd9"


def adobe(transform: int) -> bytes:
    return segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))


def turned() -> Image.Exif:
    """EXIF that states a rotation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def restated(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose frame header states another size."""
    at = re.search(rb"\xff[\xc0-\xc2]\0", data).start()
    data = bytearray(data)
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def jpegs() -> dict[str, bytes]:
    """Sound JPEGs of every kind."""
    files = {f"sampling {name}": jpeg(subsampling=name) for name in ("4:4:4", "4:2:2", "4:2:0")}
    for name, luma in {"4:4:0": (1, 2), "4:1:1": (4, 1), "4:4:1": (1, 4), "4:1:0": (4, 2), "3x1": (3, 1)}.items():
        files[f"sampling {name}"] = sampled_jpeg([luma, (1, 1), (1, 1)])
    files["sampling 2x1/1x2"] = sampled_jpeg([(2, 2), (2, 1), (1, 2)])
    files["sampling 1x1/2x2"] = sampled_jpeg([(1, 1), (2, 2), (2, 2)])
    files["YCCK 4:1:0"] = sampled_jpeg([(4, 2), (1, 1), (1, 1), (4, 2)], adobe(2))
    files["RGB"] = sampled_jpeg([(1, 1)] * 3, adobe(0))
    files["CMYK"] = jpeg(mode="CMYK")
    files["grey"] = jpeg(mode="L")
    files["grey with factors"] = sampled_jpeg([(2, 2)])
    files["progressive"] = jpeg(progressive=True)
    files["progressive CMYK"] = jpeg(mode="CMYK", progressive=True, subsampling="4:2:0")
    files["optimised"] = jpeg(optimize=True)
    files["restarts"] = jpeg(restart_marker_blocks=2)
    files["turned"] = jpeg(exif=turned())
    files["arithmetic"] = base64.b64decode(_ARITHMETIC)
    return files


def tiff_file(parts: list[bytes], compression: int, tags: dict[int, list[int]]) -> bytes:
    """A TIFF of strips, or of tiles where ``tags`` has their width (322)."""
    where, sizes = (324, 325) if 322 in tags else (273, 279)
    offsets = [8 + sum(map(len, parts[:number])) for number in range(len(parts))]
    standard = {256: [WIDTH], 257: [HEIGHT], 258: [8, 8, 8], 259: [compression], 262: [2], 277: [3]}
    tags = standard | {where: offsets, sizes: list(map(len, parts))} | tags
    start = 8 + sum(map(len, parts))
    entries, values = b"", b""
    for tag, numbers in sorted(tags.items()):
        content = struct.pack(f"<{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            values, content = values + content, struct.pack("<I", start + 6 + 12 * len(tags) + len(values))
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + content
    directory = struct.pack("<H", len(tags)) + entries + b"\0" * 4
    return b"II*\0" + struct.pack("<I", start) + b"".join(parts) + directory + values


def tiles(side: int = 16) -> list[np.ndarray]:
    """The tiles of ``pixels()``, (S, S, 3) uint8 RGB each; those at the edges are filled up."""
    down, across = -HEIGHT % side, -WIDTH % side
    image = np.pad(pixels(), ((0, down), (0, across), (0, 0)))
    return [
        image[y : y + side, x : x + side].copy()
        for y in range(0, image.shape[0], side)
        for x in range(0, image.shape[1], side)
    ]


def tiffs() -> dict[str, bytes]:
    """Sound TIFFs of every compression that OpenCV and Pillow read."""
    compressions = ("raw", "tiff_lzw", "packbits", "tiff_adobe_deflate", "tiff_deflate", "jpeg")
    files = {
        f"{mode} TIFF {compression}": by_pillow("TIFF", mode, compression=compression)
        for mode in ("RGB", "L", "CMYK")
        for compression in compressions
    }
    files["fax TIFF"] = by_pillow("TIFF", "1", compression="group4")
    files["strips TIFF"] = by_pillow("TIFF", compression="jpeg", strip_size=WIDTH * 16 * 3)
    tiled = {322: [16], 323: [16]}
    deflated = [zlib.compress(tile.tobytes()) for tile in tiles()]
    files["tiled Deflate TIFF"] = tiff_file(deflated, 8, tiled)
    jpegs = [by_pillow("JPEG", image=tile, quality=_QUALITY, subsampling="4:4:4") for tile in tiles()]
    files["tiled JPEG TIFF"] = tiff_file(jpegs, 7, {**tiled, 262: [6]})
    backwards = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
    deflated = [zlib.compress(pixels().tobytes()).translate(backwards)]
    files["TIFF of reversed bits"] = tiff_file(deflated, 32946, {266: [2], 278: [HEIGHT]})
    planes = [zlib.compress(pixels()[..., channel].tobytes()) for channel in range(3)]
    files["planar Deflate TIFF"] = tiff_file(planes, 8, {278: [HEIGHT], 284: [2]})
    runs = [b"".join(b"\x2b" + row.tobytes() for row in pixels()[..., channel]) for channel in range(3)]
    files["planar PackBits TIFF"] = tiff_file(runs, 32773, {278: [HEIGHT], 284: [2]})
    return files


def others() -> dict[str, bytes]:
    """Sound files of the other formats."""
    rgb, grey = pixels(), pixels(channels=1)
    files = {
        suffix: by_opencv(suffix)
        for suffix in (".png", ".bmp", ".webp", ".tiff", ".ppm", ".gif", ".jp2", ".avif", ".sr", ".pam")
    }
    files |= {suffix: by_opencv(suffix, rgb.astype(np.float32) / 255) for suffix in (".hdr", ".pfm")}
    files |= {suffix: by_opencv(suffix, grey) for suffix in (".pgm", ".pbm")}
    files["grey PFM"] = by_opencv(".pfm", grey)
    files["16-bit PNG"] = by_opencv(".png", rgb.astype(np.uint16) * 257)
    files["palette PNG"] = by_pillow("PNG", "P")
    files["RGBA PNG"] = by_pillow("PNG", "RGBA")
    files["palette BMP"] = by_pillow("BMP", "P")
    files["grey BMP"] = by_pillow("BMP", "L")
    files["lossless WebP"] = by_pillow("WEBP", lossless=True)
    files["RGBA WebP"] = by_pillow("WEBP", "RGBA")
    files["16-bit TIFF"] = by_opencv(".tiff", rgb.astype(np.uint16) * 257)
    files |= tiffs()
    files["plain PPM"] = b"P3\n2 2\n255\n" + b"10 20 30\n" * 4
    return files


def reason(function, *arguments):
    """The message of the ValueError that a call raises, or nothing."""
    try:
        function(*arguments)
    except (ValueError, ImageError) as error:
        return str(error)
    return ""
