"""``module:function``: a function of the user's own that embeds images, for formats that no reader supports."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.errors import CheckpointError
from model.formats.graphs.found import FoundGraph, choose_spec, pick_output
from model.graph import Graph
from model.inputs import denormalise
from pipeline.named_specs import NAMED_SPECS
from pipeline.spec import Preprocessing
from shards.arguments import shown
from shards.messages import printable

_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_CONTRACT = "expected a function from (N, S, S, 3) uint8 RGB images to (N, D) embeddings"


def is_function(path: Path) -> bool:
    """Whether a user names a function. A file of that name is a file."""
    return _NAME.fullmatch(str(path)) is not None and not path.exists()


def read_function(path: Path, given: Preprocessing | None) -> FoundGraph:
    """Imports a function, with the current folder importable; this runs the user's code.

    Its attribute ``preprocessing``, the name of a preset or a ``Preprocessing``, says how its images are prepared; colour
    order, mean and std are its own affair.

    Raises:
        CheckpointError: there is no such function, or it fails.
    """
    module_name, _, name = str(path).partition(":")
    module = _import(path, module_name)
    function = getattr(module, name, None)
    if not callable(function):
        found = f"is {shown(function)}" if hasattr(module, name) else f"is not in {module_name}"
        raise CheckpointError(f"{path}: {name} {found}, {_CONTRACT}")
    stated = _stated(path, function)
    spec = stated
    if spec is None or given is not None:
        size = None if stated is None else stated.size
        spec = choose_spec(path, size, given, expected=f"images of {size} px")
    source = Path(getattr(module, "__file__", None) or "")
    content = hashlib.blake2b(source.read_bytes() if source.is_file() else b"", digest_size=16).digest()
    graph = FunctionGraph(path, function, spec, content)
    with torch.inference_mode():
        pick_output(path, {"result": graph(torch.zeros(2, 3, spec.size, spec.size))}, 2)
    return FoundGraph(module=graph, name=str(path), spec=stated or spec, stated=stated is not None, cached=False)


class FunctionGraph(Graph):
    """A function of images as a module of pixels that are prepared by ``spec``."""

    def __init__(
        self, path: Path, function: Callable[[np.ndarray], object], spec: Preprocessing, content: bytes
    ) -> None:
        super().__init__(content)
        self._path, self._function, self._spec = path, function, spec

    def run(self, pixels: torch.Tensor) -> torch.Tensor:
        spec = self._spec
        images = denormalise(pixels, spec.mean, spec.std, color=spec.color).cpu().numpy()
        try:
            with current_folder_importable():  # for imports within the function
                found = self._function(images)
        except (Exception, SystemExit) as error:  # the user's code may raise anything
            raise CheckpointError(f"{self._path}: {_described(error)}") from error
        if isinstance(found, torch.Tensor):
            return found.detach().float().to(pixels.device)
        array = np.asarray(found)
        if array.dtype.kind not in "fiu" or array.ndim != 2:
            raise CheckpointError(f"{self._path}: returned {shown(found)} for {len(images)} images, {_CONTRACT}")
        return torch.from_numpy(array.astype(np.float32)).to(pixels.device)


@contextlib.contextmanager
def current_folder_importable() -> Iterator[None]:
    """Puts the current folder first among the places of modules. Threads may be in several blocks at once."""
    sys.path.insert(0, "")
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the user's code may change the list
            sys.path.remove("")


def _import(path: Path, name: str) -> Any:
    try:
        with current_folder_importable():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise CheckpointError(
                f"{path}: neither a file, a folder, nor a module {name} in {Path.cwd()} or among the installed packages"
            ) from None
        raise CheckpointError(f"{path}: {_described(error)}") from error
    except (Exception, SystemExit) as error:  # a script without a main guard parses arguments, and exits
        raise CheckpointError(f"{path}: {_described(error)}") from error


def _stated(path: Path, function: object) -> Preprocessing | None:
    stated = getattr(function, "preprocessing", None)
    if isinstance(stated, str) and stated in NAMED_SPECS:
        return NAMED_SPECS[stated]
    if isinstance(stated, Preprocessing | None):
        return stated
    raise CheckpointError(
        f"{path}: its attribute preprocessing is {shown(stated)}, expected {', '.join(NAMED_SPECS)}, or a Preprocessing"
    )


def _described(error: BaseException) -> str:
    """An error of the user's code with the place where it was raised, in one line."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((one for one in reversed(frames) if not one.filename.startswith("<")), frames[-1])  # not <frozen os>
    file, number, line = frame.filename, frame.lineno, frame.line
    text = str(error)
    if isinstance(error, SyntaxError):  # raised by the importer
        file, number, line, text = error.filename or file, error.lineno, error.text, error.msg
    text = printable(" ".join(text.split())[:200])
    return f"{type(error).__name__}: {text} ({file}, line {number}: {printable((line or '').strip()[:80])})"
