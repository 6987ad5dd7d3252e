"""Pictures of faces: what the network saw, and the pairs that it got most wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np

from benchmarks.report.document import Grid, Picture, Tiles
from benchmarks.report.labels import network_label, setting_label
from benchmarks.report.own_tables import OWN
from benchmarks.scoring.examples import HardPair
from benchmarks.scoring.results import Result
from pipeline.pages.pictures import QUALITY, TILE_PX, Tile
from pipeline.prepare import Request, prepare

LINE_PX, GAP_PX = 20, 8  # of a sheet
_HARDEST = {"lfw": ["{}@8", "{}@128"], "scface": ["{}@d1", "{}@d3"]}  # settings shown
_HEADINGS = {"genuine": "same person, lowest cosine", "impostors": "different people, highest cosine"}


def face_pictures(result: Result, number: int, *, faces: bool = True) -> Iterator[Picture]:
    """What a network saw, and its hardest pairs with the names of their files.

    Args:
        number: of the network among those of the report, from 0.
        faces: show them; False: only names.
    """
    suffix = f"-{number + 1}" if number else ""
    if faces and any(result.examples.values()):
        yield _seen(result, suffix)
    smallest = next(iter(result.hardest))
    settings = [smallest, "{}@full", "open/{}@full"] if result.benchmark in OWN else [smallest]
    chosen = [name for name in _HARDEST.get(result.benchmark, settings) if name in result.hardest]
    for setting in dict.fromkeys(chosen):
        yield _hardest(result, setting, suffix, faces)


def _seen(result: Result, suffix: str) -> Picture:
    """The prepared images: what the network sees of some images in each setting."""
    rows = {
        (setting_label(kind, result.benchmark) if "{}" in kind else kind) or "images": [
            (_file_name(one), _seen_image(one, result)) for one in requests
        ]
        for kind, requests in result.examples.items()
        if requests
    }
    size = result.preprocessing.size
    alt = f"{result.title}: what the network sees, images of {size} x {size} px"
    tiles = [
        Tiles(title=title, tiles=[Tile(caption=name, jpeg=_jpeg([image])) for name, image in row])
        for title, row in rows.items()
    ]
    sheet = _sheet({title: [("", [image]) for _, image in row] for title, row in rows.items()})
    return Picture(stem=f"{result.benchmark}-seen{suffix}", alt=alt, files={"png": sheet}, tiles=tiles)


def _hardest(result: Result, setting: str, suffix: str, faces: bool) -> Picture:
    kinds = {heading: result.hardest[setting][kind] for kind, heading in _HEADINGS.items()}
    label = setting_label(setting, result.benchmark)
    title = f"{result.title}{f', {label}' if label else ''}: the hardest pairs of {network_label(result.checkpoint)}"
    condition = setting.replace("open/", "-open").replace("{}", "").replace("@", "-")
    stem = f"{result.benchmark}-hardest{condition}{suffix}"
    names = [_names(heading, pairs) for heading, pairs in kinds.items()]
    if not faces:
        return Picture(
            stem=stem,
            alt=title,
            files={},
            names=[Grid(**{**vars(one), "caption": f"{title}, {one.caption}"}) for one in names],
        )
    images = {
        heading: [[_seen_image(side, result) for side in (pair.first, pair.second)] for pair in pairs]
        for heading, pairs in kinds.items()
    }
    tiles = [
        Tiles(
            title=heading, tiles=[_pair_tile(pair, shown) for pair, shown in zip(pairs, images[heading], strict=True)]
        )
        for heading, pairs in kinds.items()
    ]
    rows = {
        heading: [(f"{pair.score:.2f}", shown) for pair, shown in zip(pairs, images[heading], strict=True)]
        for heading, pairs in kinds.items()
    }
    return Picture(stem=stem, alt=title, files={"png": _sheet(rows)}, tiles=tiles, names=names)


def _names(heading: str, pairs: list[HardPair]) -> Grid:
    rows = [[f"{pair.score:.2f}", _file_name(pair.first), _file_name(pair.second)] for pair in pairs]
    return Grid(caption=heading, header=["cosine", "first", "second"], rows=rows, wraps=True)


def _pair_tile(pair: HardPair, images: list[np.ndarray]) -> Tile:
    """One image above the other."""
    names = f"{_file_name(pair.first)} | {_file_name(pair.second)}"
    return Tile(caption=f"{pair.score:.2f}", detail=names, jpeg=_jpeg(images))


def _jpeg(images: list[np.ndarray]) -> bytes:
    """(S, S, 3) RGB images, one above the other, at the size of a tile."""
    column = np.vstack([_small(image) for image in images])
    return cv2.imencode(".jpg", column[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def _small(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA)


def _sheet(rows: Mapping[str, Sequence[tuple[str, list[np.ndarray]]]]) -> bytes:
    """Rows of images as PNG; a column may hold several images, one above the other, below a caption.

    Args:
        rows: heading -> captions and their (S, S, 3) RGB images.
    """
    step = TILE_PX + GAP_PX
    width = step * max(max(map(len, rows.values())), 4)
    parts = []
    for heading, row in rows.items():
        height = max((len(images) for _, images in row), default=0)
        part = np.full((2 * LINE_PX + height * TILE_PX + GAP_PX, width, 3), 255, np.uint8)
        _write(part, heading, 0, LINE_PX)
        for column, (caption, images) in enumerate(row):
            _write(part, caption, column * step, 2 * LINE_PX)
            for place, image in enumerate(images):
                top, left = 2 * LINE_PX + place * TILE_PX, column * step
                part[top : top + TILE_PX, left : left + TILE_PX] = _small(image)
        parts.append(part)
    return cv2.imencode(".png", np.vstack(parts)[..., ::-1])[1].tobytes()


def _write(image: np.ndarray, text: str, left: int, bottom: int) -> None:
    cv2.putText(image, text, (left + 2, bottom - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)


def _seen_image(request: Request, result: Result) -> np.ndarray:
    """The (S, S, 3) uint8 RGB input of the network."""
    return prepare(request.read(result.max_pixels), [request], result.preprocessing, result.max_pixels)[0]


def _file_name(request: Request) -> str:
    """The name of the file, after its folder unless it begins with that name, as LFW's do."""
    path = request.path
    if request.part is not None:
        return f"{path.name}: image {request.part.number}"
    return path.name if path.name.startswith(path.parent.name) else f"{path.parent.name}/{path.name}"
