"""Who is on an image, by its path; and templates, one embedding for all images of an identity."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from benchmarks.scoring.vectors import MIN_NORM
from pipeline.images.lookup import composed
from pipeline.sources.folders import utf8
from shards.messages import counted, print_stderr
from shards.schema import STATUS_OK

Rule = Literal["folder", "prefix"]
Weights = Literal["equal", "norm"]
STATUS_NO_LANDMARKS, STATUS_UNUSABLE = "no-landmarks", "unusable-image"
IMAGE_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),  # as found; bytes that are not UTF-8 as \\xNN
        # Unit length; null unless the status is ok. A list of variable size as in the shards, because PyArrow before 24
        # cannot read a fixed-size list with nulls.
        pa.field("embedding", pa.list_(pa.float32())),
        pa.field("norm", pa.float32()),  # of the network's output: embedding * norm is the output
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_message", pa.string()),
    ]
)
IDENTITY = pa.field("identity", pa.string(), nullable=False)
# of a template, the norm is the length of the mean: 1 if all its images have one embedding
TEMPLATE_SCHEMA = (
    IMAGE_SCHEMA.append(IDENTITY)
    .append(pa.field("images", pa.int32(), nullable=False))  # that the mean is of
    .append(pa.field("unusable", pa.list_(pa.string()), nullable=False))  # the others: path and reason
)


def identity_of(path: str, rule: str) -> str:
    """The identity that a path names, in Unicode normal form C: names that look the same are one person.

    Args:
        rule: ``folder``: the name of the image's folder. ``prefix``: the file name up to its first underscore, as in
            SCface's ``001_cam1_1.jpg`` or QMUL-SurvFace's ``12_cam3_1.jpg``; without one, the name without its ending.
    """
    folder, name = os.path.split(os.path.abspath(path))
    return composed(os.path.basename(folder) if rule == "folder" else os.path.splitext(name)[0].partition("_")[0])


def template_path(path: str, rule: str) -> str:
    """The path of an image's template: its folder, joined with the prefix if the rule is ``prefix``."""
    folder = os.path.dirname(path)
    return folder if rule == "folder" else os.path.join(folder, identity_of(path, rule))


def _identities(paths: Sequence[str], rule: str) -> dict[str, str]:
    """Path -> identity; prints which identities lie in several folders, because these may be several people."""
    identities = {path: identity_of(utf8(path), rule) for path in paths}
    folders: dict[str, set[str]] = {}
    for path, identity in identities.items():
        folders.setdefault(identity, set()).add(os.path.dirname(path))
    several = sorted(identity for identity, found in folders.items() if len(found) > 1)
    if several:
        example = ", ".join(sorted(folders[several[0]])[:2])
        print_stderr(
            f"{counted(len(several), 'identity')} in several folders, taken for one person each, such as {several[0]}:"
            f" {example}"
        )
    return identities


@dataclasses.dataclass
class _Template:
    """An identity whose images are being added."""

    identity: str
    path: str
    total: np.ndarray | float = 0.0  # (D,) weighted sum of unit vectors
    weight: float = 0.0
    images: int = 0
    unusable: list[str] = dataclasses.field(default_factory=list)

    def add(self, vector: np.ndarray, weight: float) -> None:
        self.total = self.total + weight * vector.astype(np.float64)
        self.weight += weight
        self.images += 1

    def row(self) -> dict[str, Any]:
        mean = np.asarray(self.total / self.weight if self.images else 0.0)
        norm = float(np.linalg.norm(mean))
        usable = norm > MIN_NORM
        reason = "the mean of its images is zero" if self.images else f"no usable image, such as {self.unusable[0]}"
        return {
            "path": self.path,
            "embedding": (mean / norm).astype(np.float32) if usable else None,
            "norm": norm if usable else None,
            "status": STATUS_OK if usable else STATUS_UNUSABLE,
            "error_message": None if usable else reason,
            "identity": self.identity,
            "images": self.images,
            "unusable": self.unusable,
        }


class ImageRows:
    """The rows of a file of embeddings: one for each image, with its identity if a rule gives one.

    Args:
        rule: see ``identity_of``, for a column ``identity``; None: no such column.

    Attributes:
        schema: of the rows.
        metadata: of the file.
    """

    def __init__(self, rule: Rule | None = None) -> None:
        self._rule = rule
        self.schema = IMAGE_SCHEMA.append(IDENTITY) if rule else IMAGE_SCHEMA
        self.metadata: dict[str, str] = {}

    def ordered(self, paths: Sequence[str]) -> Sequence[str]:
        """The paths in the order in which ``add`` shall get their rows; prints which identities lie in several folders."""
        if self._rule:
            _identities(paths, self._rule)
        return paths

    def add(self, rows: pa.Table) -> pa.Table:
        """Takes rows of ``IMAGE_SCHEMA``; returns the rows to write, perhaps none."""
        if self._rule is None:
            return rows
        names = [identity_of(path, self._rule) for path in rows["path"].to_pylist()]
        return rows.append_column(IDENTITY, pa.array(names))

    def finish(self) -> pa.Table:
        """Returns the rows that are left to write."""
        return self.schema.empty_table()


class Templates(ImageRows):
    """One row for each identity: the mean of the embeddings of its images.

    Args:
        rule: what names the identity, see ``identity_of``.
        weights: of an image: ``equal``, or ``norm``, the norm of the network's output, so that the template is the mean of
            the outputs; blurred images have small norms in networks such as AdaFace and MagFace.

    Attributes:
        count: templates so far.
        usable: those of them that have an embedding.
    """

    def __init__(self, rule: Rule, weights: Weights = "equal") -> None:
        super().__init__()
        self.schema, self.metadata = TEMPLATE_SCHEMA, {"group": rule, "weights": weights}
        self._named_by, self._weights = rule, weights
        self.count = self.usable = 0
        self._open: _Template | None = None

    def ordered(self, paths: Sequence[str]) -> list[str]:
        """Sorts by identity; prints which identities lie in several folders."""
        identities = _identities(paths, self._named_by)
        return sorted(paths, key=lambda path: (identities[path], path))

    def add(self, rows: pa.Table) -> pa.Table:
        """Returns the templates that are complete."""
        flat = rows["embedding"].combine_chunks().flatten().to_numpy()
        length = len(flat) // max(len(rows) - rows["embedding"].null_count, 1)
        done, start = [], 0
        columns = [rows[name].to_pylist() for name in ("path", "norm", "status", "error_message")]
        for path, norm, status, reason in zip(*columns, strict=True):
            identity = identity_of(path, self._named_by)
            if self._open is None or self._open.identity != identity:
                done += self._close()
                self._open = _Template(identity, template_path(path, self._named_by))
            if status == STATUS_OK:
                self._open.add(flat[start : start + length], norm if self._weights == "norm" else 1.0)
                start += length
            else:
                self._open.unusable.append(f"{path}: {reason}")
        return self._table(done)

    def finish(self) -> pa.Table:
        return self._table(self._close())

    def _close(self) -> list[dict[str, Any]]:
        rows = [] if self._open is None else [self._open.row()]
        self._open = None
        self.count += len(rows)
        self.usable += sum(row["status"] == STATUS_OK for row in rows)
        return rows

    def _table(self, rows: list[dict[str, Any]]) -> pa.Table:
        return pa.Table.from_pylist(rows, schema=TEMPLATE_SCHEMA)
