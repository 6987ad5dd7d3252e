"""The fingerprint of a build, and whether a folder holds a build that can be resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import PIL

from pipeline.build.exclusions import Exclusions
from pipeline.build.options import BuildOptions
from pipeline.images.decode import MAX_PIXELS
from pipeline.sources.source import Rows
from shards.errors import ShardError
from shards.files import is_temporary_of, remove_temporaries
from shards.schema import FORMAT_VERSION, LANDMARKS, PLAN, read_plan
from shards.system_names import is_system_name


def library_versions(by_landmarks: bool) -> dict[str, str]:
    """Returns the versions of the libraries that determine the stored pixels.

    Args:
        by_landmarks: images are aligned by landmarks.
    """
    return {"opencv": cv2.__version__} | ({} if by_landmarks else {"pillow": PIL.__version__})


def fingerprint_parts(options: BuildOptions, rows: Rows, exclusions: Exclusions | None) -> dict[str, Any]:
    """Returns everything that determines the stored bytes, by the name that error messages use."""
    return {
        "format version": FORMAT_VERSION,
        "--source": options.source,
        "--landmarks": [],
        "--exclude": [exclusions.sha256] if exclusions else [],
        "--min-images": options.min_images,
        "--images-per-shard": options.images_per_shard,
        # sets that were built before this option existed can be resumed
        **({} if options.group is None else {"--group": options.group}),
        **({} if options.max_pixels == MAX_PIXELS else {"--max-pixels": options.max_pixels}),
        **({} if options.aligned is None else {"--aligned": options.aligned.to_list()}),
        "preprocessing": options.preprocessing.to_dict(),
        **{f"{name} version": version for name, version in library_versions(rows.points is not None).items()},
        **rows.parts,
    }


def check_out(out: Path, *, alone: bool = True) -> None:
    """Checks that ``out`` is empty or holds a build.

    Args:
        alone: False if other parts may be writing their shards, or the plan.

    Raises:
        ShardError: ``out`` contains files, but no build.
    """
    if alone and not (out / PLAN).exists():
        remove_temporaries(out)  # of a build that was killed while it wrote its plan
    names = sorted(entry.name for entry in out.iterdir() if not is_system_name(entry.name))
    if (out / PLAN).exists():  # looked for after the list was made: another part may have written it meanwhile
        return
    others = [name for name in names if name != LANDMARKS and not name.startswith(f"{LANDMARKS}.")]
    if others := [name for name in others if not is_temporary_of(name, PLAN)]:
        raise ShardError(f"{out}: not empty and not a shard set (it contains {others[0]}); choose a new or empty --out")


def check_plan(options: BuildOptions, parts: dict[str, Any], *, alone: bool = True) -> None:
    """Checks that ``out`` is empty or holds a build with the same fingerprint ``parts`` and root.

    Args:
        alone: as in ``check_out``.

    Raises:
        ShardError: it contains other files, or a build with other options or another root.
    """
    check_out(options.out, alone=alone)
    if not (options.out / PLAN).exists():
        return
    record = read_plan(options.out)
    differing = [name for name in {**parts, **record["parts"]} if record["parts"].get(name) != parts.get(name)]
    if record["root"] != options.origin:
        differing.insert(0, f"--root (it was {record['root']})")
    if differing:
        raise ShardError(
            f"{options.out}: contains a build with different {', '.join(differing)};"
            " choose another --out, or delete this folder first"
        )
