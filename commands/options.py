"""Options shared by several commands."""

from __future__ import annotations

import functools
import os
import re
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchmarks import BENCHMARKS, is_own_benchmark
from commands.group import CommandError, rank_of_several

if TYPE_CHECKING:
    from shards.store import Store

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_STORE_URL = re.compile(r"(s3|gs)://", re.IGNORECASE)
_SLASH_LOST = re.compile(r"(s3|gs|file|https?):/(?!/)", re.IGNORECASE)


class LocalPath(click.Path):
    """A path on this machine, which may be given as ``file:///...``.

    Another URL is refused: as a path it would be a folder called ``s3:``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(path_type=Path, **options)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        value = local_path(value)
        check_local(value, stores=isinstance(self, StorePath))
        return super().convert(value, param, ctx)


class StorePath(LocalPath):
    """A path on this machine, or the URL of an object store, which becomes a ``shards.store.Store``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not is_store_url(value):
            return super().convert(value, param, ctx)
        from shards.store import Store, StoreError

        try:
            return Store(os.fspath(value))
        except StoreError as error:
            self.fail(str(error), param, ctx)


class SizeText(click.ParamType):
    """A number of bytes with a unit, such as ``50G``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from shards.cache_folder import as_bytes

        try:
            return as_bytes(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def is_store_url(value: str | os.PathLike[str]) -> bool:
    """Returns True for the URL of an object store, see ``shards.store``, which is not imported without need."""
    return bool(_STORE_URL.match(os.fspath(value)))


def staging(store: Store) -> Path:
    """Where files wait that go to a store: a folder under ``$LRFR_DATA/cache``."""
    return data("cache", "stores", store.folder_name)()


def local_path(value: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """``file:///faces`` -> ``/faces``; other values as they are."""
    parts = urllib.parse.urlsplit(value) if isinstance(value, str) and value.startswith("file://") else None
    return urllib.parse.unquote(parts.path) if parts and parts.netloc in ("", "localhost") else value


def check_local(value: str | os.PathLike[str], *, option: str | None = None, stores: bool = False) -> None:
    """Raises: click.UsageError: ``value`` is empty, no path, a URL or nearly one, or begins with ``~/`` as ``--out=~/x`` does.

    Args:
        option: its name, where click does not know it.
        stores: URLs of object stores would do; the line says so.
    """
    if not os.fspath(value):  # pathlib takes it for the current folder
        raise click.BadParameter("an empty path; is a variable of the shell not set?", param_hint=option)
    if "\0" in os.fspath(value):  # as of file:///%00
        raise click.BadParameter(f"{value!r}: no path contains a null character", param_hint=option)
    if os.fspath(value).startswith("~/"):
        raise click.BadParameter(f"{value}: the shell did not replace ~; write $HOME or ./~ for it", param_hint=option)
    if match := _SLASH_LOST.match(os.fspath(value)):
        raise click.BadParameter(
            f"{value}: a URL has two slashes, {match[1]}://; write ./{match[1]}: for a folder of this name",
            param_hint=option,
        )
    if _URL.match(os.fspath(value)):
        instead = "; or a URL of s3:// or gs://" if stores else ""
        raise click.BadParameter(
            f"{value} is a URL; expected a path on this machine: copy or mount the data{instead}", param_hint=option
        )


PATH = LocalPath()
STORE_PATH = StorePath()
_AUTO = Path("auto")  # a file of this name can be given by its full path


def data(*parts: str) -> Callable[[], Path]:
    """A callable default: a path under ``$LRFR_DATA`` (default ``data``), resolved when the command runs."""

    def default() -> Path:
        root = os.environ.get("LRFR_DATA") or "data"
        check_local(root)
        return Path(root, *parts)

    return default


def folder(name: str, *parts: str, help: str, store: bool = False) -> Any:
    """An option that takes a folder, or a URL, too; its default is ``$LRFR_DATA`` joined with ``parts``."""
    return click.option(
        name,
        type=(StorePath if store else LocalPath)(file_okay=False),
        default=data(*parts),
        show_default="/".join(("$LRFR_DATA", *parts)),
        help=help,
    )


def option_group(*options: Any) -> Any:
    """Joins options into one decorator; ``--help`` lists them in this order."""
    return lambda command: functools.reduce(lambda decorated, option: option(decorated), reversed(options), command)


def landmarks_option(help: str) -> Any:
    """``--landmarks``, which may be repeated."""
    help = help.replace(";", ", or auto to find the landmarks first;", 1)
    return click.option("--landmarks", type=PATH, multiple=True, callback=_check_auto, help=help)


def is_auto(landmarks: tuple[Path, ...]) -> bool:
    """Returns True for ``--landmarks auto``."""
    return landmarks == (_AUTO,)


def _check_auto(context: click.Context, option: click.Parameter, landmarks: tuple[Path, ...]) -> tuple[Path, ...]:
    if _AUTO in landmarks and len(landmarks) > 1:
        raise click.UsageError("--landmarks auto finds all landmarks itself: leave out the tables")
    return landmarks


def is_given(name: str) -> bool:
    """Returns True if the user gave an option of the running command, perhaps with the value that it has by default."""
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def check_alignment(landmarks: tuple[Path, ...], aligned: str | None) -> None:
    """Raises: UsageError: images are to be aligned, and are aligned crops."""
    if landmarks and aligned:
        raise click.UsageError("--landmarks and --aligned: aligned crops need no landmarks; leave one of them out")


def landmark_model() -> Path:
    """Where ``fetch landmarker`` puts the landmark model."""
    from pipeline.landmarks.model import FILE_NAME, FOLDER

    return data(FOLDER, FILE_NAME)()


def _network_option(help: str, **attributes: Any) -> Any:
    """``--network``; ``--checkpoint`` is its name of earlier versions."""
    help = f"Checkpoint, weights of another project, ONNX or TorchScript file, model folder, or module:function.{help}"
    newest = " [default: the newest checkpoint under $LRFR_DATA/runs]"
    return click.option("--network", "--checkpoint", "network", type=PATH, help=help + newest, **attributes)


network_option = _network_option("")
max_pixels_option = click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=1 << 28,
    show_default="268435456, as 16384 x 16384",
    help="Reject images whose header states more pixels, and files of more than 4 bytes for each of them.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=lambda: len(os.sched_getaffinity(0)),
    show_default="all cores",
    help="Number of worker processes.",
)


def _embeds_in_ranks(command: Callable[..., Any]) -> Callable[..., Any]:
    """Under ``torchrun``, runs the command on rank 0 alone; the other ranks embed for it."""

    @functools.wraps(command)
    def run(**options: Any) -> Any:
        if rank_of_several() is None:
            return command(**options)
        from commands.ranks import run_in_ranks

        return run_in_ranks(command, options)

    return run


# what `commands.network.open_engine` takes beside the network; for commands that embed, on all ranks of `torchrun`
_engine_options = option_group(
    click.option(
        "--preprocessing",
        metavar="NAME|FILE.toml",
        help="How the network sees a face: seed, arcface, insightface, adaface, magface, facenet, dlib, or a TOML file."
        " [default: as the network states, or usual for its format]",
    ),
    click.option(
        "--flip",
        type=click.Choice(["none", "mean", "norm-weighted"]),
        default="none",
        help="Flip fusion: add the embedding of the mirrored image, both as unit vectors (mean) or as they are (norm-weighted).",
    ),
    click.option("--batch-size", type=click.IntRange(min=1), default=64, help="Images per forward pass."),
    click.option(
        "--device", type=click.Choice(["cpu", "cuda"]), help="Device of the network. [default: cuda if available]"
    ),
    click.option(
        "--precision",
        type=click.Choice(["fp32", "bf16"]),
        default="fp32",
        help="Precision of the forward pass; bf16 is faster and changes scores slightly.",
    ),
    click.option("--no-cache", is_flag=True, help="Do not read or write the embedding cache, $LRFR_DATA/cache."),
    max_pixels_option,
    _embeds_in_ranks,
)
engine_options = option_group(network_option, _engine_options)
scoring_engine_options = option_group(
    _network_option(" May be repeated: each is scored, and all are compared.", multiple=True), _engine_options
)


def check_benchmark(name: str) -> str:
    """Returns the name of a benchmark, or the path of a TOML file that describes a user's own benchmark.

    Raises:
        click.BadParameter: it is neither.
    """
    if name not in BENCHMARKS and not is_own_benchmark(name):
        raise click.BadParameter(f"{name!r} is not a benchmark; choose from {', '.join(BENCHMARKS)}, or a TOML file")
    return name


def pick_device(device: str | None) -> str:
    """Returns ``device``, by default ``cuda`` if available, else ``cpu``.

    Raises:
        CommandError: ``cuda`` is not available.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise CommandError("--device cuda: PyTorch finds no GPU; use --device cpu, or install a CUDA build of PyTorch")
    return device or ("cuda" if torch.cuda.is_available() else "cpu")
