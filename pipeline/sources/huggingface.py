"""Image folders as Hugging Face ``datasets`` reads them: a metadata file, or folders of identities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.align import TEMPLATES
from pipeline.images.lookup import valid_text
from pipeline.sources.file_readers import ListedImages
from pipeline.sources.image_list import chosen, table_rows
from pipeline.sources.image_table import read_image_table
from pipeline.sources.image_text import SPLITS
from pipeline.sources.labels import Labelled, labelled_rows
from pipeline.sources.listing import ImageList, list_images, shortened
from pipeline.sources.source import Rows, Source, SourceError
from pipeline.spec import NO_TEMPLATE
from shards.messages import print_stderr

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


class HuggingFace(Source):
    """An image folder with ``metadata.csv``, ``.jsonl`` or ``.parquet``, or of ``label/image.jpg``; one split of it."""

    name = "huggingface"
    dataset = "huggingface"
    shards = "shards-huggingface"
    templates = (*TEMPLATES, NO_TEMPLATE)
    default_template = "seed"
    takes_landmarks = True
    takes_split = True

    def image_folders(self, root: Path, *, split: str | None = None) -> list[Path]:
        return [root if _metadata(root) else _split_folder(root, split)]

    def rows(self, root: Path, landmarks: Sequence[Path], *, aligning: bool, split: str | None = None) -> Rows:
        folder = root if _metadata(root) else _split_folder(root, split)
        parts = {"split": os.path.relpath(folder, root)}
        if found := _metadata(folder):
            table = chosen(read_image_table(found), found, split if folder == root else None)
            parts |= {"metadata": table.sha256}
            return table_rows([table], [found], folder, landmarks, aligning=aligning, parts=parts, root=root)
        images = _listed(folder)
        if deeper := [name for name in images.others if os.path.basename(name) in METADATA]:
            raise SourceError(
                f"{folder}: a metadata file in a folder below it ({shortened(deeper)}), so that folders need not be"
                f" identities; build from that folder alone, or join such files to one in {folder}"
            )
        names = pa.array([valid_text(os.fsdecode(name)) for name in images.names.to_pylist()])
        in_folder = pc.match_substring(names, "/")
        labels = pc.if_else(
            in_folder, pc.replace_substring_regex(names, r"(?s)/[^/]*$", ""), pa.scalar(None, pa.string())
        )
        return labelled_rows(
            Labelled(names=names, identities=labels, places=images.names, others=images.others),
            landmarks,
            aligning=aligning,
            reader=ListedImages(folder),
            parts=parts,
            where=str(folder),
            expected=f"{', '.join(METADATA)}, or <label>/<image>.jpg",
        )


def _listed(folder: Path) -> ImageList:
    """The images of folders of labels. Raises: SourceError: there are none."""
    try:
        return list_images(folder)
    except SourceError:
        tables = sorted(path.name for place in (folder, folder / "data") for path in place.glob("*.parquet"))
        if not tables:
            raise
    raise SourceError(
        f"{folder}: Parquet files ({shortened(tables)}) in place of images; save the images as files first, as an image folder"
    )


def _metadata(folder: Path) -> Path | None:
    """The metadata file of a folder. Raises: SourceError: there are several, or it is no file."""
    found = [folder / name for name in METADATA if os.path.lexists(folder / name)]
    if len(found) > 1:
        raise SourceError(f"{folder}: {' and '.join(path.name for path in found)}; keep one of them")
    if found and not found[0].is_file():
        raise SourceError(f"{found[0]}: a pipe, a folder or a link to nothing; replace it by a file, or delete it")
    return found[0] if found else None


def _split_folder(root: Path, split: str | None) -> Path:
    """The folder of a split, ``train`` by default, or ``root`` if it has no such folders.

    Raises:
        SourceError: there is no such split, or several and none is called ``train``.
    """
    splits = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and entry.name.lower() in SPLITS)
    if split is not None and not (root / split).is_dir():
        raise SourceError(f"{root}: no folder {split}; it has {', '.join(splits) or 'no folders of splits'}")
    chosen_split = split or next((name for name in splits if name.lower() in ("train", "training")), None)
    if chosen_split is None and len(splits) > 1:
        raise SourceError(f"{root}: several splits ({', '.join(splits)}); choose one with --split")
    chosen_split = chosen_split or (splits[0] if splits else "")
    if others := [name for name in splits if name != chosen_split]:
        print_stderr(f"{root}: split {chosen_split} is used; left out: {', '.join(others)} (--split chooses one)")
    return root / chosen_split
