"""Build options: what to build and how."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pipeline.align import TEMPLATES
from pipeline.executors import Executor
from pipeline.images.decode import MAX_PIXELS
from pipeline.sources.catalog import find_source
from pipeline.sources.source import Source, SourceError
from pipeline.sources.stored_root import StoredRoot
from pipeline.sources.templates import CropTemplate, crop_template
from pipeline.spec import MAX_SIZE_PX, NO_TEMPLATE, Preprocessing
from shards.arguments import check_argument, check_path, check_paths, check_whole, shown
from shards.errors import ShardError
from shards.files import StrPath
from shards.schema import LANDMARKS
from shards.store import Store

MIN_GROUP = 2  # images: a group of one is no group


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What to build and how. All fields but ``workers``, ``executor`` and ``ray_address`` affect the result.

    Paths may be given as strings.

    Attributes:
        source: a key of ``SOURCES``.
        root: the data set's folder; for a source without landmarks, the folder of identities.
        stored_root: the data set's folder in an object store, if it is there; then ``root`` is its ``folder``.
        landmarks: landmark tables; empty for a source without landmarks, and for aligned crops.
        landmark_model: the landmark model, if the build finds the landmarks itself and writes the table.
        lists: files that name the images, for a source that takes such files.
        split: the part of the data set to use, for a source that has several; None for all or its default.
        aligned: the template that the images follow, if they are aligned crops already.
        out: the shard set's folder.
        store: the object store that the shard set is built into; then ``out`` is a staging folder, which is
            deleted at the end.
        exclude: file of identities or keys to leave out.
        min_images: identities with fewer usable images are left out.
        images_per_shard: None for the default.
        group: images of an identity that stay together in a shard; None spreads each one by itself.
        max_pixels: an image that states more is not decoded; it becomes a row with a reason.
        workers: number of processes; None for one for each CPU.
        ray_address: of the Ray cluster that builds, for executor ``ray``; None starts one on this machine.
        retry_failed: build shards with missing or unreadable images again.
    """

    source: str = "vggface2"
    root: Path
    stored_root: StoredRoot | None = None
    landmarks: tuple[Path, ...]
    landmark_model: Path | None = None
    out: Path
    store: Store | None = None
    preprocessing: Preprocessing
    lists: tuple[Path, ...] = ()
    split: str | None = None
    aligned: CropTemplate | None = None
    exclude: Path | None = None
    min_images: int = 1
    images_per_shard: int | None = None
    group: int | None = None
    max_pixels: int = MAX_PIXELS
    executor: Executor = "process"
    workers: int | None = 1
    ray_address: str | None = None
    retry_failed: bool = False

    def __post_init__(self) -> None:
        """Raises: TypeError, SourceError, ShardError: a field has a wrong type or value."""
        self._convert()
        source = find_source(self.source)
        if not isinstance(self.executor, str) or self.executor not in get_args(Executor):
            raise ShardError(f"unknown executor {shown(self.executor)}; choose from {', '.join(get_args(Executor))}")
        for name in ("workers", "min_images", "images_per_shard", "max_pixels"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise ShardError(f"{name} is {number}, expected at least 1")
        if self.group is not None and self.group < MIN_GROUP:
            raise ShardError(f"group is {self.group}, expected at least {MIN_GROUP}")
        self._check_template(source)

    def _check_template(self, source: Source) -> None:
        """Raises: SourceError, ShardError: the source does not give what the template or the landmarks are for."""
        template, own = self.preprocessing.template, self.preprocessing.points is not None
        if self.aligned is not None and not (source.takes_aligned and (own or template in TEMPLATES)):
            raise SourceError(f"source {self.source}: cannot store aligned crops with template {template}")
        if self.aligned is None and template not in source.templates:
            if template in TEMPLATES:
                raise SourceError(f"source {self.source}: has no landmarks, so its images cannot be aligned")
            raise ShardError(f"unknown template {template!r}; choose from {', '.join(source.templates)}")
        if self.landmarks and not (source.takes_landmarks and self.aligning):
            raise SourceError(f"source {self.source}: is not aligned by landmarks here; leave out landmarks")
        for option, given, taken in (
            ("--list", bool(self.lists), source.takes_lists),
            ("--split", self.split is not None, source.takes_split),
        ):
            if given and not taken:
                raise SourceError(f"--source {self.source} takes no {option}; leave it out")

    def _convert(self) -> None:
        """Checks the types of the fields, and converts paths and numbers. Raises: TypeError."""
        check_argument(
            isinstance(self.preprocessing, Preprocessing), "preprocessing", self.preprocessing, "a Preprocessing"
        )
        check_argument(
            isinstance(self.aligned, CropTemplate | None), "aligned", self.aligned, "a CropTemplate, or None"
        )
        check_argument(
            isinstance(self.stored_root, StoredRoot | None), "stored_root", self.stored_root, "a StoredRoot, or None"
        )
        check_argument(isinstance(self.store, Store | None), "store", self.store, "a Store, or None")
        check_argument(isinstance(self.retry_failed, bool), "retry_failed", self.retry_failed, "True or False")
        check_argument(isinstance(self.split, str | None), "split", self.split, "the name of a split, or None")
        converted: dict[str, Any] = {name: check_paths(name, getattr(self, name)) for name in ("landmarks", "lists")}
        converted |= {name: check_path(name, getattr(self, name)) for name in ("root", "out")}
        converted |= {name: check_whole(name, getattr(self, name)) for name in ("min_images", "max_pixels")}
        for name in ("exclude", "landmark_model"):
            if (path := getattr(self, name)) is not None:
                converted[name] = check_path(name, path)
        for name in ("workers", "images_per_shard", "group"):
            if (number := getattr(self, name)) is not None:
                converted[name] = check_whole(name, number)
        check_argument(isinstance(self.ray_address, str | None), "ray_address", self.ray_address, "HOST:PORT, or None")
        for name, value in converted.items():
            object.__setattr__(self, name, value)

    @property
    def origin(self) -> str:
        """Where the images are: a URL, or the full path of ``root``."""
        return self.stored_root.store.url if self.stored_root else os.path.realpath(self.root)

    @property
    def origin_name(self) -> str:
        """The last part of ``origin``, for messages."""
        return self.origin.rpartition("/")[2] if self.stored_root else self.root.name

    @property
    def place(self) -> Path | Store:
        """Where the shard set is to be: the store, if there is one, or ``out``."""
        return self.store or self.out

    @property
    def aligning(self) -> bool:
        """True if faces are aligned by landmarks, unless the source says that they are already."""
        return self.preprocessing.aligned and self.aligned is None

    def source_arguments(self, source: Source) -> dict[str, Any]:
        """The further arguments of ``source.rows`` and ``source.image_folders``, of a source that has some."""
        return {
            **({"lists": self.lists} if source.takes_lists else {}),
            **({"split": self.split} if source.takes_split else {}),
        }


def options_for(
    source: str,
    *,
    root: StrPath,
    landmarks: StrPath | Sequence[StrPath] = (),
    landmark_model: StrPath | None = None,
    aligned: StrPath | None = None,
    template: str | None = None,
    size: int | None = None,
    **options: Any,
) -> BuildOptions:
    """Returns options with the source's defaults: where its images and landmarks are, and how they are prepared.

    Args:
        landmarks: one table or several; empty for the source's default files.
        landmark_model: MediaPipe's model file, to find the landmarks with; they are kept in ``landmarks.parquet`` in
            ``out``.
        aligned: the template that the images follow, if they are aligned crops: its name, or a TOML file.
        template: the template that is stored. None for the default: that of ``aligned``, or that of the source.
        size: side of the stored crops, px. None for the default: that of ``aligned``, or 128.
        options: further fields of ``BuildOptions``.

    Raises:
        SourceError: there is no such source, its folder is absent, or an option does not apply to it or is needed.
        LandmarkError: the source's landmark files are absent.
        ShardError: unknown template, or an option with a wrong value.
        TypeError: an argument has a wrong type.
    """
    layout, root, landmarks = find_source(source), check_path("root", root), check_paths("landmarks", landmarks)
    check_argument(isinstance(template, str | None), "template", template, f"one of {', '.join(layout.templates)}")
    named = "the name of a template, or a path"
    check_argument(isinstance(aligned, str | os.PathLike | None), "aligned", aligned, named)
    crops = None if aligned is None else crop_template(aligned)
    spec = _spec(layout, crops, template, size)
    aligning = crops is None and spec.aligned
    if landmark_model is not None:
        landmarks = (check_path("out", options.get("out")) / LANDMARKS,)
    if landmarks and not (layout.takes_landmarks and aligning):
        why = "--aligned crops need no landmarks" if crops else "its images are resized whole, not aligned"
        raise SourceError(f"--source {source}: {why}; omit --landmarks")
    if layout.takes_landmarks and aligning and not landmarks:
        landmarks = tuple(layout.landmark_files(root))
    return BuildOptions(
        source=source,
        root=layout.locate(root),
        landmarks=landmarks,
        landmark_model=None if landmark_model is None else check_path("landmark_model", landmark_model),
        preprocessing=spec,
        aligned=crops,
        **options,
    )


def _spec(source: Source, crops: CropTemplate | None, template: str | None, size: int | None) -> Preprocessing:
    """The preprocessing that the options ask for, by default that of the crops or the source."""
    size = None if size is None else check_whole("size", size, 1, MAX_SIZE_PX)
    if crops is not None:
        return _crop_spec(source, crops, template, size or max(crops.size))
    size = size or Preprocessing.size
    template = template or source.default_template
    if template is None:
        raise SourceError(f"--source {source.name}: {source.template_hint}")
    if template in TEMPLATES and source.templates == (NO_TEMPLATE,):
        hint = source.template_hint or "its images are resized whole, not aligned; omit --template"
        raise SourceError(f"--source {source.name}: {hint}")
    return (
        Preprocessing.unaligned(size=size) if template == NO_TEMPLATE else Preprocessing(template=template, size=size)
    )


def _crop_spec(source: Source, crops: CropTemplate, template: str | None, size: int) -> Preprocessing:
    """The preprocessing of aligned crops: they stay as they are unless another template or size is asked for."""
    if not source.takes_aligned:
        raise SourceError(f"--source {source.name} takes no --aligned; use --source folder for aligned crops")
    template = template or crops.built_in
    if template is None:
        return crops.spec(size)
    if template == NO_TEMPLATE:
        raise SourceError("--template none: images are resized whole; omit --aligned")
    return Preprocessing(template=template, size=size)
