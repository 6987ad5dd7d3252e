"""Tars to read, and the rows of what is read."""

from __future__ import annotations

import io
import tarfile

from pipeline.sources.webdataset import WebDataset
from tests.pipeline.sources.archives import face_table

JPEG = b"\xff\xd8 no image"


def write_tar(path, members):
    """Writes members: (name, content), or a ``TarInfo`` alone."""
    with tarfile.open(path, "w") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def rows_of(path, **options):
    return WebDataset().rows(path, [], **{"aligning": False, **options})


def keys(rows):
    return rows.keys.to_pylist()


def faces(root):
    """(name, JPEG, landmarks) of the generated faces."""
    return [(name, (root / "train" / name).read_bytes(), points) for name, points in face_table(root).items()]
