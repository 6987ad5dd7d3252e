"""Pictures with known faults, and an embedder that knows who is on each."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np

from benchmarks.engine.runner import Engine
from benchmarks.scoring.protocols import PairProtocol
from pipeline.align import template_points
from pipeline.build import build, options_for
from pipeline.prepare import Request, prepare
from pipeline.spec import Preprocessing, spec_of
from shards.index import ShardIndex, ShardReader

PEOPLE, IMAGES, SIDE, DIMENSIONS = 30, 5, 128, 64
NOISE = 0.05  # of an embedding beside its person's


def picture(rng: np.random.Generator) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8: smooth shapes and finer details, unlike those of any other call."""
    layers = (rng.normal(0, 40, (size, size, 3)) for size in (6, 16, 48))
    return np.clip(
        sum(cv2.resize(layer, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for layer in layers) + 128, 20, 255
    ).astype(np.uint8)


def changed(image: np.ndarray) -> np.ndarray:
    """The same photograph, mirrored, with its face a little elsewhere, and re-encoded."""
    moved = cv2.warpAffine(
        image[:, ::-1], np.array([[1.02, 0.01, 1.5], [-0.01, 1.02, -1]]), (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT
    )
    return cv2.imdecode(cv2.imencode(".jpg", moved, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)


@dataclasses.dataclass
class Faulty:
    """A folder of pictures, who is on each, and the set built from it."""

    root: Path
    people: dict[str, int] = dataclasses.field(default_factory=dict)  # key -> person
    pictures: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def add(self, key: str, person: int, image: np.ndarray) -> None:
        path = self.root / "faces" / f"{key}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), image)
        self.people[key], self.pictures[key] = person, image

    def build(self, **options) -> Path:
        out = self.root / "shards"
        build(options_for("crops", root=self.root / "faces", template="arcface", out=out, executor="serial", **options))
        return out

    def engine(self, shards: Path, requests: dict[Path, tuple[Request, int]] | None = None, **changes) -> Engine:
        """An engine whose network knows every picture of the set, and the requests of a benchmark."""
        vectors, spec = {}, Preprocessing(template="arcface")
        rng = np.random.default_rng(1)
        people = rng.normal(size=(1000, DIMENSIONS)) / np.sqrt(DIMENSIONS)

        def learn(image: np.ndarray, person: int) -> None:
            vectors[image.tobytes()] = people[person] + NOISE * rng.normal(size=DIMENSIONS)

        index = ShardIndex(shards)
        assert spec_of(index.manifest).size == SIDE
        with ShardReader(index) as reader:
            for row in range(len(index)):
                image = prepare(reader.image(row), [Request(path=Path("x"))], spec)[0]
                learn(image, self.people[index.key(row)])
        for request, person in (requests or {}).values():
            learn(prepare(request.path.read_bytes(), [request], spec)[0], person)

        def embed(images: np.ndarray) -> np.ndarray:
            return np.array([vectors[image.tobytes()] for image in images], np.float32)

        return Engine(embed=embed, spec=spec, **changes)


def benchmark(folder: Path, images: dict[str, tuple[int, np.ndarray]]) -> tuple[PairProtocol, dict]:
    """A protocol of pairs of aligned crops: name -> person and picture. Also its requests and people by path."""
    points = tuple((float(x), float(y)) for x, y in template_points("arcface", SIDE))
    requests, people = [], []
    for name, (person, image) in images.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), image)
        requests += [Request(path=path, points=points, down=down) for down in (8, None)]
        people += [person, person]
    rows = np.arange(len(requests)).reshape(-1, 2)
    protocol = PairProtocol(
        name="lfw",
        title="LFW",
        root=folder,
        published_counts={},
        requests=requests,
        main="accuracy",
        members={"{}": rows},
        identities=np.array(people).reshape(-1, 2),
        genuine=np.ones(len(rows), bool),
        folds=np.zeros(len(rows), int),
    )
    return protocol, {one.path: (one, person) for one, person in zip(requests, people, strict=True) if one.down is None}
