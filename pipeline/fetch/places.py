"""Puts downloads into ``$LRFR_DATA``, in the layout that the other commands expect."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.fetch.assets import DOWNLOADS, Download, FetchError
from pipeline.fetch.download import Sources, require_file
from pipeline.fetch.unpack import unpack_images
from pipeline.images.lookup import is_generated, is_image, scan
from shards.errors import LockedError
from shards.locks import locked
from shards.messages import command, counted
from shards.system_names import is_system_name


def fetch(name: str, data: Path, sources: Sources) -> Iterator[str]:
    """Downloads and unpacks what is missing of one of ``DOWNLOADS``; yields lines about what is there.

    Args:
        data: ``$LRFR_DATA``.

    Raises:
        FetchError: a file could not be downloaded or unpacked, or others are in the way.
        OSError: the disk is full, or a file cannot be written.
    """
    download = DOWNLOADS[name]
    root = data / download.folder
    if is_generated(root):
        raise FetchError(f"{root}: holds the generated faces of demo-data; move the folder away, or set LRFR_DATA")
    root.mkdir(parents=True, exist_ok=True)
    try:
        with locked(root, "downloading"):
            yield from _complete(download, root, sources)
    except LockedError:
        raise FetchError(f"{root}: another process is downloading here; wait for it to end") from None
    if download.images:
        scored = command("bench", name, "--landmarks", "auto")
        yield f"bench {name} also needs landmarks: the reference's LFW.csv, or: {scored}"


def _complete(download: Download, root: Path, sources: Sources) -> Iterator[str]:
    images, archive = root / download.images, download.archive
    present = _counts(images) if archive and images.exists() else None
    if present and download.counts not in (None, present):
        raise FetchError(
            f"{images}: {counted(present[0], 'image')} of {counted(present[1], 'person')}, published {download.counts[0]:,} of"
            f" {download.counts[1]:,}; move it away, then run the same command again"
        )
    for file in download.files:
        require_file(file, root / file.name, sources)
        yield f"{download.title}: {root / file.name}"
    if archive:
        if present is None:
            require_file(archive, root / archive.name, sources)
            present = unpack_images(root / archive.name, images, download.counts)
            yield f"{root / archive.name}: unpacked, may be deleted"
        yield f"{download.title}: {counted(present[0], 'image')} of {counted(present[1], 'person')} in {images}"


def _counts(folder: Path) -> tuple[int, int]:
    """Number of images and of people in ``folder/person/image``."""
    people = [entry.name for entry in scan(folder) if entry.is_folder and not is_system_name(entry.name)]
    images = [sum(map(is_image, os.listdir(folder / person))) for person in people]
    return sum(images), len(people)
