"""The interface of a source of faces: its images by name, and a reader of their bytes.

A source is a small class in a file of its own, and one line in ``pipeline.sources.catalog``. Its ``rows`` lists the images
of a folder: names ``identity/image``, where the reader finds each of them, landmarks if the source has some, and what is
wrong with single entries. Its reader goes to the worker processes, which read one image after another. Labels, shards,
decoding, alignment, damaged images, resuming and everything on disk are done by the build, for all sources alike.
``docs/guide/sources.md`` shows a complete source.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from pipeline.images.decode import ImageError
from pipeline.spec import NO_TEMPLATE
from shards.errors import LrfrError


class SourceError(LrfrError):
    """A source that is absent or unusable, or an option that does not apply to it."""


class Reader(abc.ABC):
    """Reads images. Picklable: it is sent to worker processes, and opens what it needs when it reads."""

    @abc.abstractmethod
    def read(self, place: Any, max_bytes: int | None = None) -> bytes:
        """Returns the content of an image file.

        Args:
            place: an element of ``Rows.places``, or of ``Rows.keys`` if there are no places.

        Raises:
            FileNotFoundError: there is no such image; the message becomes the row's ``error_message``.
            OSError: the image cannot be read.
            ImageError: it has more than ``max_bytes``, or is damaged; the message becomes the row's ``error_message``.
        """

    def expect(self, places: Sequence[Any]) -> None:  # noqa: B027 - most have nothing to prepare
        """Announces places that will be read, in this order; some may be skipped."""

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Closes what is open. A later ``read`` opens it again."""


def is_present(reader: Reader, place: Any) -> bool:
    """Returns True if there is an image at ``place``, whether or not it can be read."""
    try:
        reader.read(place, 0)
    except FileNotFoundError:
        return False
    except (OSError, ImageError):
        return True
    return True


def _given_before(row: int) -> str:
    return "the name is given before"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """The N images of a source, in an order that is the same whenever they are listed.

    Attributes:
        keys: (N,) ``identity/image`` without extension, with any folders in front.
        reader: reads the images.
        parts: what a resumed build compares, by the name that messages use: digests of the lists and names behind the rows.
        places: (N,) bytes that tell the reader where each image is; None if it finds them by key. Images with a place
            have been seen; those without may be absent altogether, which is checked before a build.
        points: (N, 10) float32, x and y of left eye, right eye, nose, left and right mouth corner (as seen by the
            viewer), px; None if the images are not aligned by landmarks.
        problems: row -> (status, reason) of entries that cannot be stored, see ``docs/format.md``.
        others: entries that are not images, which are counted in a line.
        duplicate_of: describes a row, for the message of a later row with the same key.
        of_other_files: given the rows that share their key with another one, returns those that describe another file
            than the one that is read, as ``problems``. None if a row cannot do that.
    """

    keys: pa.StringArray
    reader: Reader
    parts: Mapping[str, Any]
    places: pa.BinaryArray | None = None
    points: np.ndarray | None = None
    problems: Mapping[int, tuple[str, str]] = dataclasses.field(default_factory=dict)
    others: Sequence[str] = ()
    duplicate_of: Callable[[int], str] = _given_before
    of_other_files: Callable[[np.ndarray], Mapping[int, tuple[str, str]]] | None = None


class Source(abc.ABC):
    """A kind of data set.

    Attributes:
        name: as given to ``--source``.
        dataset: default folder of the data set, under ``$LRFR_DATA``.
        shards: default folder of its shards, under ``$LRFR_DATA``.
        templates: templates that its images can be stored with unless they are aligned crops: ``none`` for images that
            are resized whole, others if ``rows`` returns points.
        default_template: one of them; None if the user has to say what the images are.
        template_hint: what the error message asks for then.
        takes_landmarks: its images are those of landmark tables.
        takes_aligned: its images may be aligned crops.
        takes_lists: ``rows`` and ``image_folders`` have the argument ``lists``, files that name its images.
        takes_store: ``root`` may be in an object store, see ``pipeline.sources.stored_root``.
        takes_split: ``rows`` and ``image_folders`` have the argument ``split``, the name of the part that is used, or None.
    """

    name: ClassVar[str]
    dataset: ClassVar[str]
    shards: ClassVar[str]
    templates: ClassVar[tuple[str, ...]] = (NO_TEMPLATE,)
    default_template: ClassVar[str | None] = None
    template_hint: ClassVar[str] = ""
    takes_landmarks: ClassVar[bool] = False
    takes_aligned: ClassVar[bool] = True
    takes_lists: ClassVar[bool] = False
    takes_store: ClassVar[bool] = False
    takes_split: ClassVar[bool] = False

    def locate(self, root: Path) -> Path:
        """Returns the folder of the images, in or at ``root``.

        Raises:
            SourceError: there is none.
        """
        if not root.is_dir():
            raise SourceError(f"{root}: not a folder; --root names the folder of --source {self.name}")
        return root

    def watched(self, root: Path) -> list[Path]:
        """Folders that must exist while images are read: if one vanishes, the build ends instead of rejecting images."""
        return [root]

    def image_folders(self, root: Path) -> list[Path]:
        """Folders that hold all images, or the images themselves, for finding their landmarks.

        Raises:
            LandmarkError: ``root`` is not a folder.
        """
        return [root]

    def landmark_files(self, root: Path) -> list[Path]:
        """Returns the default landmark tables in ``root``.

        Raises:
            LandmarkError: there are none.
        """
        return []

    @abc.abstractmethod
    def rows(self, root: Path, landmarks: Sequence[Path], *, aligning: bool) -> Rows:
        """Lists the images.

        Args:
            root: what ``locate`` returned.
            landmarks: landmark tables; empty unless the source takes them.
            aligning: images are aligned by the points of the rows, so these must have some. Otherwise points are not
                needed.

        Raises:
            SourceError: there are no images, or no points although they are needed.
            LandmarkError: a landmark table cannot be read.
            OSError: something cannot be read.
        """
