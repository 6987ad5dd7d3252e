"""Renders photos of generated people with the cameras of the public data sets."""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from pipeline.demo.faces import Conditions, Identity
from pipeline.demo.painter import paint
from pipeline.opencv import single_thread
from shards.files import naming

Photo = tuple[np.ndarray, np.ndarray]  # (height, width, 3) uint8 RGB; (5, 2) landmarks, px

FIRST_TEST_PERSON = 1_000_000  # smaller numbers are people of the training sets
SCENE_SIZE = (250, 320)  # width and height of a test person's photo, px
MUGSHOT_POSE = 0.2  # pose angles of a mugshot, relative to those of other photos


@dataclasses.dataclass(frozen=True, kw_only=True)
class Camera:
    """How a photo becomes a file."""

    crop_size: tuple[int, int] | None = None  # width and height of the central crop, px; None keeps the whole photo
    face_only: bool = False  # crop to the face, as a detector does
    # range of the distance between the eyes after downsampling, px; None keeps the photo's scale
    eye_distance: tuple[float, float] | None = None
    degrade_half: bool = False  # degrade a random half of the photos severely, at unchanged size
    jpeg_quality: int = 92  # 1 to 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """One image file of a data set, at ``path`` in its folder: photo number ``photo`` of ``person``."""

    path: str
    person: int
    photo: int
    camera: Camera


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentityJob:
    """Work for one process: all images of one person."""

    person: int
    seed: int
    images: list[tuple[str, ImageSpec]]  # images to write, each with the name of its data set
    folders: dict[str, Path]  # folder of each data set

    def __str__(self) -> str:
        return f"person {self.person}"

    @property
    def photo_count(self) -> int:
        """Number of photos to paint."""
        return len({image.photo for _, image in self.images})


def render_identity(job: IdentityJob) -> tuple[int, dict[str, dict[str, np.ndarray]]]:
    """Paints each photo of a person once and writes the images made from it.

    The content of a file depends on the seed, the person, the photo and its path only.

    Returns:
        The number of photos, and landmarks: data set -> path -> (5, 2), px.
    """
    identity = Identity(np.random.default_rng([job.seed, job.person]))
    landmarks: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    images = sorted(job.images, key=lambda item: item[1].photo)
    with single_thread:
        for number, group in itertools.groupby(images, key=lambda item: item[1].photo):
            photo = _render_photo(identity, job.person, number, job.seed)
            for dataset, image in group:
                key = [job.seed, job.person, number, zlib.crc32(f"{dataset}/{image.path}".encode())]
                pixels, points = _apply_camera(photo, image.camera, np.random.default_rng(key))
                path = job.folders[dataset] / image.path
                path.parent.mkdir(parents=True, exist_ok=True)
                with naming(path):
                    path.write_bytes(_jpeg(pixels, image.camera.jpeg_quality).tobytes())
                landmarks[dataset][image.path] = points
    return job.photo_count, landmarks


def _render_photo(identity: Identity, person: int, number: int, seed: int) -> Photo:
    """Paints photo ``number`` of a person.

    Photos of test people have a larger background, and their first photo is a mugshot: nearly frontal, mouth closed.
    """
    rng = np.random.default_rng([seed, person, number])
    is_test = person >= FIRST_TEST_PERSON
    width = int(rng.integers(160, 190) if is_test else rng.integers(120, 180))
    conditions = Conditions(rng)
    if is_test and number == 0:
        conditions.yaw *= MUGSHOT_POSE
        conditions.pitch *= MUGSHOT_POSE
        conditions.roll *= MUGSHOT_POSE
        conditions.mouth_open = 0.0
    photo = paint(identity, conditions, width=width, height=int(width * rng.uniform(1.1, 1.4)), rng=rng)
    return _extend_background(photo, conditions, rng) if is_test else photo


def _apply_camera(photo: Photo, camera: Camera, rng: np.random.Generator) -> Photo:
    """Crops, downsamples and degrades a photo according to ``camera``.

    Landmarks follow: x' = x * s for a resize by s, with pixel corners at whole numbers.
    """
    pixels, points = photo
    if camera.crop_size:
        corner = (np.array(pixels.shape[1::-1]) - camera.crop_size) // 2
        pixels, points = _crop(pixels, points, corner, corner + camera.crop_size)
    if camera.face_only:
        center, unit = points.mean(0), max(_eye_distance(points), 8.0)
        low, high = center - np.multiply(unit, (1.15, 1.5)), center + np.multiply(unit, (1.15, 1.35))
        pixels, points = _crop(pixels, points, low.astype(int), high.astype(int))
    if camera.eye_distance:
        pixels, points = _downsample(pixels, points, rng.uniform(*camera.eye_distance) / _eye_distance(points), rng)
    if camera.degrade_half and rng.random() < 0.5:
        pixels = _degraded(pixels, points, rng)
    return pixels, points


def _extend_background(photo: Photo, conditions: Conditions, rng: np.random.Generator) -> Photo:
    """Centres a photo in a scene of ``SCENE_SIZE`` by continuing its edges."""
    pixels, points = photo
    margins = np.array(SCENE_SIZE) - pixels.shape[1::-1]
    left, top = margins // 2
    right, bottom = margins - margins // 2
    smooth = cv2.blur(pixels, (9, 9))
    scene = cv2.copyMakeBorder(smooth, top, bottom, left, right, cv2.BORDER_REPLICATE).astype(np.float32)
    scene += rng.standard_normal(scene.shape, np.float32) * np.float32(conditions.noise)
    scene[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return scene.clip(0, 255).astype(np.uint8), points + (left, top)


def _crop(pixels: np.ndarray, points: np.ndarray, low: np.ndarray, high: np.ndarray) -> Photo:
    """The part of the photo between two corners, (x, y) px."""
    low = np.maximum(low, 0)
    return pixels[low[1] : high[1], low[0] : high[0]], points - low


def _downsample(pixels: np.ndarray, points: np.ndarray, scale: float, rng: np.random.Generator) -> Photo:
    """Simulates a distant camera: lens blur, downsampling, sensor noise."""
    before = np.array(pixels.shape[1::-1])
    after = np.maximum(np.round(before * scale), 1).astype(int)
    if scale < 0.9:
        pixels = cv2.GaussianBlur(pixels, (0, 0), 0.35 / scale)
    small = cv2.resize(pixels, after.tolist(), interpolation=cv2.INTER_AREA)
    return _add_noise(small, rng.uniform(1.0, 5.0), rng), points * (after / before)


def _degraded(pixels: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The photo downsampled to 4-10 px between the eyes, enlarged again, noisy and strongly compressed."""
    size = pixels.shape[1::-1]
    small, _ = _downsample(pixels, points, rng.uniform(4.0, 10.0) / _eye_distance(points), rng)
    small = _add_noise(small, rng.uniform(0.0, 12.0), rng)
    large = cv2.resize(small, size, interpolation=cv2.INTER_CUBIC if rng.random() < 0.5 else cv2.INTER_LINEAR)
    return np.asarray(cv2.imdecode(_jpeg(large, int(rng.integers(8, 50))), cv2.IMREAD_COLOR))[..., ::-1]


def _add_noise(pixels: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Adds grey Gaussian noise of ``sigma`` levels."""
    noise = rng.standard_normal((*pixels.shape[:2], 1), np.float32) * np.float32(sigma)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


def _eye_distance(points: np.ndarray) -> float:
    return float(np.linalg.norm(points[1] - points[0]))


def _jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
