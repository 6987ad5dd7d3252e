"""Photographs of generated people, and prints of them such as the cameras of the public data sets took."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from pathlib import Path

import cv2
import numpy as np

from pipeline.demo.faces import Identity, Shot, sample_identity, sample_shot
from pipeline.demo.painter import paint

Photograph = tuple[np.ndarray, np.ndarray]  # (height, width, 3) uint8 RGB; (5, 2) landmarks, px

FIRST_TEST_PERSON = 1_000_000  # people of the benchmarks are never people of the training set
_SCENE = (250, 320)  # px, width and height of a test person's photograph
_POSED = 0.2  # a mugshot's pose, share of any other's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Camera:
    """How a photograph becomes a file.

    Attributes:
        size: width and height of the part about the middle that is kept, px; None: all of it.
        tight: the face alone is kept, as a detector returns it.
        eyes: least and greatest distance between the eyes, px; None: as painted.
        spoilt: every second picture, by chance, is all but lost; its size stays.
        quality: of the JPEG.
    """

    size: tuple[int, int] | None = None
    tight: bool = False
    eyes: tuple[float, float] | None = None
    spoilt: bool = False
    quality: int = 92


@dataclasses.dataclass(frozen=True, kw_only=True)
class Print:
    """One file of a data set, ``path`` under its folder: photograph ``image`` of ``person``."""

    path: str
    person: int
    image: int
    camera: Camera


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sitting:
    """Work for one process: all prints of one person, by data set, and the folders that they go to."""

    person: int
    seed: int
    prints: dict[str, list[Print]]
    folders: dict[str, Path]

    @property
    def photographs(self) -> int:
        """How many have to be painted."""
        return len({job.image for prints in self.prints.values() for job in prints})


def develop(sitting: Sitting) -> tuple[int, dict[str, dict[str, np.ndarray]]]:
    """Paints each photograph of a sitting once and writes its prints.

    A file depends on the seed, the person, the photograph and its own path; not on what else is printed.

    Returns:
        the number of photographs; data set -> path -> (5, 2) landmarks, px.
    """
    who = sample_identity(np.random.default_rng([sitting.seed, sitting.person]))
    jobs = [(name, job) for name, prints in sitting.prints.items() for job in prints]
    jobs.sort(key=lambda pair: pair[1].image)
    landmarks: dict[str, dict[str, np.ndarray]] = {name: {} for name in sitting.prints}
    cv2.setNumThreads(1)
    for image, printed in itertools.groupby(jobs, key=lambda pair: pair[1].image):
        photograph = take(who, sitting.person, image, sitting.seed)
        for name, job in printed:
            key = [sitting.seed, sitting.person, image, zlib.crc32(f"{name}/{job.path}".encode())]
            pixels, points = expose(photograph, job.camera, np.random.default_rng(key))
            _write_jpeg(sitting.folders[name] / job.path, pixels, job.camera.quality)
            landmarks[name][job.path] = points
    return sitting.photographs, landmarks


def take(who: Identity, person: int, image: int, seed: int) -> Photograph:
    """Photograph ``image`` of a person; the first of a test person is posed, and all of theirs have surroundings."""
    rng = np.random.default_rng([seed, person, image])
    testing = person >= FIRST_TEST_PERSON
    width = int(rng.integers(160, 190) if testing else rng.integers(120, 180))
    shot = sample_shot(rng)
    if testing and image == 0:
        shot = dataclasses.replace(
            shot, yaw=_POSED * shot.yaw, pitch=_POSED * shot.pitch, roll=_POSED * shot.roll, mouth_open=0.0
        )
    photograph = paint(who, shot, width=width, height=int(width * rng.uniform(1.1, 1.4)), rng=rng)
    return _surround(photograph, shot, rng) if testing else photograph


def expose(photograph: Photograph, camera: Camera, rng: np.random.Generator) -> Photograph:
    """What a camera makes of a photograph; landmarks follow, x' = x * s for a resize by s."""
    pixels, points = photograph
    if camera.size:
        corner = (np.array(pixels.shape[1::-1]) - camera.size) // 2
        pixels, points = _crop(pixels, points, corner, corner + camera.size)
    if camera.tight:
        middle, unit = points.mean(0), max(_eye_distance(points), 8.0)
        low, high = middle - np.multiply(unit, (1.15, 1.5)), middle + np.multiply(unit, (1.15, 1.35))
        pixels, points = _crop(pixels, points, low.astype(int), high.astype(int))
    if camera.eyes:
        pixels, points = _shrink(pixels, points, rng.uniform(*camera.eyes) / _eye_distance(points), rng)
    if camera.spoilt and rng.random() < 0.5:
        pixels = _spoil(pixels, points, rng)
    return pixels, points


def _surround(photograph: Photograph, shot: Shot, rng: np.random.Generator) -> Photograph:
    """Puts a photograph in the middle of a scene: what meets its edges goes on."""
    pixels, points = photograph
    left, top = (np.array(_SCENE) - pixels.shape[1::-1]) // 2
    right, bottom = np.array(_SCENE) - pixels.shape[1::-1] - (left, top)
    smooth = cv2.blur(pixels, (9, 9))
    scene = cv2.copyMakeBorder(smooth, top, bottom, left, right, cv2.BORDER_REPLICATE).astype(np.float32)
    scene += rng.standard_normal(scene.shape, np.float32) * np.float32(shot.noise)
    scene[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return scene.clip(0, 255).astype(np.uint8), points + (left, top)


def _crop(pixels: np.ndarray, points: np.ndarray, low: np.ndarray, high: np.ndarray) -> Photograph:
    """The part between two corners, px, as far as there is one."""
    low = np.maximum(low, 0)
    return pixels[low[1] : high[1], low[0] : high[0]], points - low


def _shrink(pixels: np.ndarray, points: np.ndarray, scale: float, rng: np.random.Generator) -> Photograph:
    """A distant camera's picture: fewer pixels, a soft lens, sensor noise."""
    before = np.array(pixels.shape[1::-1])
    after = np.maximum(np.round(before * scale), 1).astype(int)
    if scale < 0.9:
        pixels = cv2.GaussianBlur(pixels, (0, 0), 0.35 / scale)
    small = cv2.resize(pixels, after.tolist(), interpolation=cv2.INTER_AREA)
    return _add_noise(small, rng.uniform(1.0, 5.0), rng), points * (after / before)


def _spoil(pixels: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture shrunk to a few pixels between the eyes, enlarged again, noisy and compressed hard."""
    size = pixels.shape[1::-1]
    small, _ = _shrink(pixels, points, rng.uniform(4.0, 10.0) / _eye_distance(points), rng)
    small = _add_noise(small, rng.uniform(0.0, 12.0), rng)
    large = cv2.resize(small, size, interpolation=cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR)
    return np.asarray(cv2.imdecode(_jpeg(large, int(rng.integers(8, 50))), cv2.IMREAD_COLOR))[..., ::-1]


def _add_noise(pixels: np.ndarray, levels: float, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal((*pixels.shape[:2], 1), np.float32) * np.float32(levels)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


def _eye_distance(points: np.ndarray) -> float:
    return float(np.linalg.norm(points[1] - points[0]))


def _jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]


def _write_jpeg(path: Path, pixels: np.ndarray, quality: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_jpeg(pixels, quality).tobytes())
