"""What a build is asked to do, and how a restart knows that it is the same build."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import PIL

from pipeline.align import TEMPLATES
from pipeline.executors import Executor
from pipeline.sources.catalog import SOURCES, landmark_files, training_folder
from pipeline.sources.landmarks import LandmarkError
from pipeline.sources.listing import ImageList, SourceError
from pipeline.spec import Preprocessing
from shards.errors import ShardError
from shards.files import file_facts, read_record, remove_temporaries
from shards.schema import FORMAT_VERSION, PLAN


@dataclasses.dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """What to build and how; everything but ``workers`` and ``executor`` shapes the result.

    Attributes:
        root: the data set's folder; of a source without landmarks the folder of identities itself.
        landmarks: none for a source that has none.
    """

    source: str = "vggface2"
    root: Path
    landmarks: tuple[Path, ...]
    out: Path
    preprocessing: Preprocessing
    exclude: Path | None = None
    min_images: int = 1
    images_per_shard: int | None = None
    executor: Executor = "process"
    workers: int = 1
    retry_failed: bool = False

    def __post_init__(self) -> None:
        if not self.aligned:
            if self.landmarks or self.preprocessing.aligned:
                raise SourceError(f"source {self.source}: has no landmarks, its images cannot be aligned")
        elif self.preprocessing.template not in TEMPLATES:
            raise ShardError(f"template {self.preprocessing.template!r} is unknown; choose from {', '.join(TEMPLATES)}")

    @property
    def aligned(self) -> bool:
        """True where faces are aligned by landmarks."""
        return SOURCES[self.source].aligned


def options_for(
    source: str, *, root: Path, landmarks: tuple[Path, ...], template: str | None, **options: Any
) -> BuildOptions:
    """Options with what the source implies: where its images and landmarks are, and how they are prepared.

    Args:
        landmarks: empty for the files that the source has by default.
        template: None for the default one.
        options: further fields of ``BuildOptions``.

    Raises:
        SourceError: the source is not there, or has no landmarks and is given some, or a template.
        LandmarkError: its landmark files are not there.
    """
    layout = SOURCES[source]
    if layout.aligned:
        spec = Preprocessing() if template is None else Preprocessing(template=template)
        files = landmarks or tuple(landmark_files(layout, root))
        return BuildOptions(source=source, root=root, landmarks=files, preprocessing=spec, **options)
    for name, value in (("--landmarks", landmarks), ("--template", template)):
        if value:
            raise SourceError(
                f"--source {source}: its images are resized whole, not aligned by landmarks; leave {name} out"
            )
    folder = training_folder(layout, root)
    return BuildOptions(source=source, root=folder, landmarks=(), preprocessing=Preprocessing.unaligned(), **options)


def read_exclusions(path: Path | None) -> list[str]:
    """The entries of an exclusion list, one a line, without comments. Raises: LandmarkError: it cannot be read."""
    if path is None:
        return []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LandmarkError(f"{path}: {_reason(error)}; expected one identity or identity/image a line") from None
    entries = [line.strip().strip('"') for line in lines if not line.startswith("#")]
    return [entry for entry in entries if entry]


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error.strerror)


def library_versions(options: BuildOptions) -> dict[str, str]:
    """Of those that make the stored pixels."""
    return {"opencv": cv2.__version__} | ({} if options.aligned else {"pillow": PIL.__version__})


def fingerprint_parts(options: BuildOptions, images: ImageList | None) -> dict[str, Any]:
    """All that shapes the stored bytes, by name, so that a refusal can say what differs.

    Args:
        images: what the folder holds, of a source without landmarks.
    """
    files: Sequence[Path] = (*options.landmarks, *([options.exclude] if options.exclude else []))
    try:
        hashes = [file_facts(path)["sha256"] for path in files]
    except OSError as error:
        raise LandmarkError(f"{error.filename}: {error.strerror}; expected a landmark CSV") from None
    return {
        "format version": FORMAT_VERSION,
        "--source": options.source,
        "--landmarks": hashes[: len(options.landmarks)],
        "--exclude": hashes[len(options.landmarks) :],
        "--min-images": options.min_images,
        "--images-per-shard": options.images_per_shard,
        "preprocessing": options.preprocessing.to_dict(),
        **{f"{name} version": version for name, version in library_versions(options).items()},
        **({} if images is None else {"files under --root": images.digest}),
    }


def check_plan(options: BuildOptions, parts: dict[str, Any]) -> None:
    """Raises: ShardError: ``out`` holds something else, or a build whose ``parts`` or root differ."""
    path = options.out / PLAN
    if not path.exists():
        remove_temporaries(options.out, [PLAN])  # a build may have been killed while it wrote its plan
        strangers = sorted(entry.name for entry in options.out.iterdir())
        if strangers:
            raise ShardError(
                f"{options.out}: not empty and not a shard set (it holds {strangers[0]}); choose a new or empty --out"
            )
        return
    record = read_record(path)
    different = [name for name, value in parts.items() if record["parts"].get(name) != value]
    if record["root"] != str(options.root.resolve()):
        different.insert(0, f"--root (it was {record['root']})")
    if different:
        raise ShardError(
            f"{options.out}: holds a build with other {', '.join(different)}; choose another --out, or delete this one first"
        )
