"""The sources by name. Adding one is a file with its class, and a line here.

The classes are imported when they are used, so that ``--help`` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from shards.arguments import check_argument

if TYPE_CHECKING:
    from pipeline.sources.source import Source

# name -> class, and what it reads
SOURCES = {
    "vggface2": ("pipeline.sources.vggface2:VGGFace2", "VGGFace2, aligned by its landmark files"),
    "qmul": ("pipeline.sources.folder:Qmul", "training set of QMUL-SurvFace, resized whole"),
    "tinyface": ("pipeline.sources.folder:TinyFace", "training set of TinyFace, resized whole"),
    "folder": ("pipeline.sources.folder:Folder", "identity/image, aligned by --landmarks, or already (--aligned)"),
    "recordio": (
        "pipeline.sources.recordio:RecordIO",
        "train.rec and train.idx of insightface (MS1M, WebFace, Glint), with --aligned",
    ),
    "webdataset": (
        "pipeline.sources.webdataset:WebDataset",
        "tars of key.jpg with .cls, .json or .txt, or of identity/image",
    ),
    "list": ("pipeline.sources.image_list:ImageListSource", "images and identities that --list names"),
    "huggingface": ("pipeline.sources.huggingface:HuggingFace", "image folder with metadata.csv, .jsonl or .parquet"),
    "crops": ("pipeline.sources.folder:Crops", "identity/image, already aligned to --template"),
}


def find_source(name: str) -> Source:
    """Returns a source by name.

    Raises:
        SourceError: there is no such source.
    """
    from pipeline.sources.source import SourceError

    check_argument(isinstance(name, str), "source", name, f"one of {', '.join(SOURCES)}")
    if name not in SOURCES:
        raise SourceError(f"unknown source {name!r}; choose from {', '.join(SOURCES)}")
    module, _, kind = SOURCES[name][0].partition(":")
    source: Source = getattr(importlib.import_module(module), kind)()
    return source
