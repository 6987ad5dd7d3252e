"""Copies a training set with known faults in it: wrong labels, split identities, copies of photographs, test people."""

from __future__ import annotations

import csv
import dataclasses
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np

from pipeline.images.decode import decode
from pipeline.tables.landmark_table import HEADER

JITTER_PX = 0.7  # of the landmarks of a copy: another run of a detector
CROP_SHARE = (0.02, 0.07)  # cut from each side
COPY_QUALITY = (55, 85)
MIRRORED_POINTS = [1, 0, 2, 4, 3]
MIN_SPLIT_IMAGES = 6


@dataclasses.dataclass(frozen=True)
class Photo:
    """One image of a set: its file, five landmarks, and the person that it shows."""

    path: Path
    points: np.ndarray  # (5, 2) px
    person: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shares:
    """How much is planted; fractions of the images, or of the identities."""

    wrong_labels: float = 0.03
    split_identities: float = 0.05
    copies: float = 0.03
    test_people: int = 10


@dataclasses.dataclass
class Truth:
    """What was planted. Keys are ``identity/image``."""

    wrong: set[str] = dataclasses.field(default_factory=set)  # images under another person's name
    split: set[tuple[str, str]] = dataclasses.field(default_factory=set)  # pairs of identities of one person
    copies: set[tuple[str, str]] = dataclasses.field(default_factory=set)  # pairs of images of one photograph
    test_images: set[str] = dataclasses.field(default_factory=set)  # copies of images of the benchmark
    test_people: set[str] = dataclasses.field(default_factory=set)  # identities of the benchmark


def read_photos(root: Path, table: Path) -> dict[str, list[Photo]]:
    """Reads images with landmarks, by person; ``table`` has ``identity/image`` or a path, and ten numbers a line."""
    found: dict[str, list[Photo]] = defaultdict(list)
    with table.open() as stream:
        for name, *numbers in csv.reader(stream):
            if name == HEADER[0]:
                continue
            person, image = name.replace("\\", "/").removesuffix(".jpg").split("/")[-2:]
            path = root / person / f"{image}.jpg"
            if path.exists():
                found[person].append(Photo(path, np.array(numbers, float).reshape(5, 2), person))
    return dict(sorted(found.items()))


class Planter:
    """Writes a VGGFace2 folder with faults into ``out``; ``truth`` says which."""

    def __init__(self, out: Path, seed: int) -> None:
        self.truth = Truth()
        self._out, self._rng = out, np.random.default_rng(seed)
        self._rows: list[list[str]] = []
        self._next: dict[str, int] = defaultdict(int)

    def plant(
        self, people: dict[str, list[Photo]], strangers: list[Photo], tests: dict[str, list[Photo]], shares: Shares
    ) -> None:
        """Copies ``people`` with faults.

        Args:
            strangers: photographs of other people, for every second wrong label.
            tests: the people of a benchmark.
        """
        names = self._names(people, shares)
        photos = [photo for shots in people.values() for photo in shots]
        order = iter(self._rng.permutation(len(photos)).tolist())
        wrong = {next(order) for _ in range(round(shares.wrong_labels * len(photos)))}
        copied = {next(order) for _ in range(round(shares.copies * len(photos)))}
        unknown = iter(strangers)
        labels = sorted(names)
        for number, photo in enumerate(photos):
            name = names[photo.person][number % len(names[photo.person])]
            shown = photo
            if number in wrong:
                shown = next(unknown, photo) if number % 2 else photo
                name = name if shown is not photo else self._other(labels, photo.person)
            key = self._write(name, shown, decode(shown.path), 95)
            if number in wrong:
                self.truth.wrong.add(key)
            if number in copied:
                self._copy(key, photo, labels)
        self._plant_tests(tests, shares.test_people)
        self._finish()

    def _names(self, people: dict[str, list[Photo]], shares: Shares) -> dict[str, list[str]]:
        """The identities of each person: two for some."""
        names = {person: [person] for person in people}
        large = [person for person, shots in people.items() if len(shots) >= MIN_SPLIT_IMAGES]
        count = min(round(shares.split_identities * len(people)), len(large))
        for person in self._rng.choice(large, count, replace=False).tolist():
            names[person] = [person, f"{person}b"]
            self.truth.split.add((person, f"{person}b"))
        return names

    def _other(self, people: list[str], person: str) -> str:
        return str(self._rng.choice([other for other in people if other != person]))

    def _copy(self, key: str, photo: Photo, people: list[str]) -> None:
        """Adds another version of a photograph: under its own name, or under another person's."""
        own = self._rng.random() < 0.5
        name = key.split("/")[0] if own else self._other(people, photo.person)
        copy = self._write(name, *self._changed(photo))
        self.truth.copies.add((min(key, copy), max(key, copy)))
        if not own:
            self.truth.wrong.add(copy)

    def _changed(self, photo: Photo) -> tuple[Photo, np.ndarray, int]:
        """A version of a photograph, cropped or mirrored or both, and its JPEG quality."""
        image, points = decode(photo.path), photo.points + self._rng.normal(0, JITTER_PX, (5, 2))
        if self._rng.random() < 0.5:
            image = np.ascontiguousarray(image[:, ::-1])
            points = (points * (-1, 1) + (image.shape[1] - 1, 0))[MIRRORED_POINTS]
        if self._rng.random() < 0.5:
            height, width = image.shape[:2]
            left, right, top, bottom = (self._rng.uniform(*CROP_SHARE, 4) * (width, width, height, height)).astype(int)
            image, points = image[top : height - bottom, left : width - right], points - (left, top)
        return Photo(photo.path, points, photo.person), image, int(self._rng.integers(*COPY_QUALITY))

    def _plant_tests(self, tests: dict[str, list[Photo]], count: int) -> None:
        """Adds people of a benchmark as identities, with changed versions of the benchmark's own images."""
        large = [person for person, shots in tests.items() if len(shots) >= 4][:count]
        for number, person in enumerate(large):
            self.truth.test_people.add(f"x{number:06d}")
            for photo in tests[person]:
                self.truth.test_images.add(self._write(f"x{number:06d}", *self._changed(photo)))

    def _write(self, name: str, photo: Photo, image: np.ndarray, quality: int) -> str:
        self._next[name] += 1
        key = f"{name}/{self._next[name]:04d}_01"
        path = self._out / "train" / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        self._rows.append([key, *(f"{value:.3f}" for value in photo.points.ravel())])
        return key

    def _finish(self) -> None:
        folder = self._out / "bb_landmark"
        folder.mkdir(parents=True, exist_ok=True)
        lines = [",".join(row) for row in sorted(self._rows)]
        (folder / "loose_landmark_train.csv").write_text("\n".join([",".join(HEADER), *lines]) + "\n")
