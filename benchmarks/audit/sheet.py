"""The contact sheet of an audit: an HTML page with pictures of the findings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.audit.findings import (
    BENCHMARK_PERSON,
    BENCHMARK_PHOTOGRAPH,
    SAME_PERSON,
    SAME_PHOTOGRAPH,
    WRONG_LABEL,
    Finding,
)
from benchmarks.audit.stored import StoredImages
from pipeline.images.decode import ImageError, decode_bytes
from pipeline.pages.pictures import Histogram, Tile, thumbnail
from pipeline.pages.render import environment
from pipeline.prepare import Request
from shards.files import write_bytes
from shards.index import ShardIndex

EXAMPLES = 40  # findings of a kind with pictures
TYPICAL = 2  # pictures of an identity
MAX_PIXELS = 1 << 25  # of an image of a benchmark
SCORE_EDGES = (-20, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20)
TITLES = {
    WRONG_LABEL: "Wrong labels",
    SAME_PERSON: "One person under two names",
    SAME_PHOTOGRAPH: "One photograph twice",
    BENCHMARK_PHOTOGRAPH: "Photographs of benchmarks",
    BENCHMARK_PERSON: "People of benchmarks",
}
TEXTS = {
    WRONG_LABEL: "First the image with the probability that its label is wrong, then typical images of its identity;"
    " last an identity that it resembles, if there is one.",
    SAME_PERSON: "Typical images of both identities, and the cosine of their centres.",
    SAME_PHOTOGRAPH: "Pairs of images whose details agree, re-encoded, mirrored or cropped; the score is the correlation"
    " of the details.",
    BENCHMARK_PHOTOGRAPH: "An image of the set, and the image of the benchmark that is the same photograph.",
    BENCHMARK_PERSON: "Typical images of an identity, and an image of the person in the benchmark.",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """The findings of one kind."""

    title: str
    text: str
    count: int
    examples: list[list[Tile]]
    histogram: Histogram | None = None


class Sheet:
    """Makes the pictures of findings.

    Args:
        typical: (N,) how typical an image is of its identity, such as its similarity.
    """

    def __init__(self, images: StoredImages, keys: pa.Array, identities: pa.Array, typical: np.ndarray) -> None:
        self._images, self._keys, self._identities = images, keys, identities
        self._typical = np.nan_to_num(typical, nan=-1.0)

    def sections(self, findings: Sequence[Finding], own: np.ndarray) -> Iterator[Section]:
        """Yields a section for each kind of finding that there is.

        Args:
            own: standard scores of the images with their own identity.
        """
        for kind, title in TITLES.items():
            found = [finding for finding in findings if finding.kind == kind]
            if found:
                scores = Histogram.of("Images by standard score with their identity", own, SCORE_EDGES)
                yield Section(
                    title=title,
                    text=TEXTS[kind],
                    count=len(found),
                    examples=[list(self._tiles(finding)) for finding in found[:EXAMPLES]],
                    histogram=scores if kind == WRONG_LABEL else None,
                )

    def _tiles(self, finding: Finding) -> Iterator[Tile]:
        score = f"{finding.score:.3f}" + (", excluded" if finding.excluded else "")
        if finding.row is not None:
            yield self._stored(finding.row, score)
        if finding.row is None or finding.kind == WRONG_LABEL:
            yield from self._typical_tiles(finding.identity, finding.row, "" if finding.row is not None else score)
        if isinstance(finding.other, int):
            yield self._stored(finding.other, "")
        elif finding.picture is not None:
            yield Tile(caption=str(finding.other), jpeg=_picture(finding.picture))
        elif finding.other_identity is not None:
            yield from self._typical_tiles(finding.other_identity, None, "resembles" if finding.row is not None else "")

    def _typical_tiles(self, identity: int, without: int | None, detail: str) -> Iterator[Tile]:
        index: ShardIndex = self._images.index
        rows = index.first[identity] + np.arange(index.count[identity])
        rows = rows[rows != without]
        for row in rows[np.argsort(-self._typical[rows], kind="stable")][:TYPICAL].tolist():
            yield self._stored(row, detail)

    def _stored(self, row: int, detail: str) -> Tile:
        return Tile(caption=self._keys[row].as_py(), detail=detail, jpeg=thumbnail(self._images.image(row)))


def _picture(request: Request) -> bytes | None:
    try:
        return thumbnail(decode_bytes(request.read(MAX_PIXELS), max_pixels=MAX_PIXELS))
    except (OSError, ImageError):
        return None


def write_sheet(title: str, about: Sequence[tuple[str, str]], sections: Sequence[Section], path: Path) -> None:
    """Writes the page as one file."""
    page = environment(Path(__file__).parent).get_template("audit.html")
    write_bytes(path, page.render(title=title, about=about, sections=sections).encode())
