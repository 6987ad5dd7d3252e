"""TorchScript files: loaded by PyTorch after a check of the names in their code."""

from __future__ import annotations

import re
import zipfile
import zlib
from pathlib import Path

import torch

from model.errors import DAMAGE_ERRORS, CheckpointError, one_line
from model.formats.graphs.found import FoundGraph, choose_spec
from model.formats.graphs.modules import TorchGraph
from model.graph import file_hash
from pipeline.named_specs import NAMED_SPECS
from pipeline.spec import Preprocessing
from shards.messages import printable
from shards.process_setting import ignored_warnings

MAX_CODE_BYTES = 1 << 24
SIZES_PX = (112, 128, 160, 224, 96, 150, 256)  # tried in this order: the file states no size
# Names of operators on files, processes and networks, and of classes that PyTorch's libraries register. TorchScript has
# no other way to name them: no strings are evaluated, and no Python is called.
_REFUSED = re.compile(
    r"(?<!\w)(save|load|from_file|load_tensor|open|print|rpc_\w+|c10d\w*|_c10d\w*|symm_mem|debugprims|inductor|PythonOp"
    r"|classes(?!\s*\.\s*(?:quantized|xnnpack)\b))(?!\w)"
)


def is_script(path: Path) -> bool:
    """Whether a file is a TorchScript archive."""
    return any(name.endswith("/constants.pkl") for name in member_names(path))


def member_names(path: Path) -> list[str]:
    """The names in a zip file; none if it is not such a file."""
    try:
        if not path.is_file() or not zipfile.is_zipfile(path):
            return []
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return []


def read_script(path: Path, given: Preprocessing | None) -> FoundGraph:
    """Loads a TorchScript file.

    Raises:
        CheckpointError: it is damaged, names operators that are refused, or is not a network from faces to embeddings.
    """
    _check_code(path)
    try:
        with ignored_warnings():  # that it is deprecated
            module = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
    except DAMAGE_ERRORS as error:
        raise CheckpointError(f"{path}: damaged or not TorchScript ({one_line(error)}); save it again") from None
    graph = TorchGraph(path, module, file_hash(path))
    size = _size(graph) if given is None or given in NAMED_SPECS.values() else given.size
    spec = choose_spec(path, size, given, expected=f"images of {size} px")
    graph.find_output(spec.size)
    return FoundGraph(module=graph, name="torchscript", spec=spec, stated=False)


def _size(graph: TorchGraph) -> int:
    """The first size of images that the graph can be run on; the usual one if there is none."""
    for size in SIZES_PX:
        try:
            with torch.inference_mode():
                graph.outputs(torch.zeros(2, 3, size, size))
        except CheckpointError:
            continue
        return size
    return SIZES_PX[0]


def _check_code(path: Path) -> None:
    """Raises: CheckpointError: it names operators that are refused, or unpacks to far more than it has."""
    try:
        with zipfile.ZipFile(path) as archive:
            code = [member for member in archive.infolist() if "/code/" in member.filename]
            if sum(member.file_size for member in code) > MAX_CODE_BYTES:
                raise CheckpointError(f"{path}: refused: more than {MAX_CODE_BYTES:,} bytes of code")
            if sum(member.file_size for member in archive.infolist()) > path.stat().st_size + MAX_CODE_BYTES:
                raise CheckpointError(f"{path}: refused: it unpacks to more than its size; save it by torch.jit.save")
            texts = [
                archive.read(member).decode("utf-8", "replace") for member in code if member.filename.endswith(".py")
            ]
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise CheckpointError(f"{path}: damaged ({one_line(error)}); save it again") from None
    if found := next(filter(None, map(_REFUSED.search, texts)), None):
        raise CheckpointError(
            f"{path}: refused: its code names {printable(found[1])}, which may reach files or other processes; trace the"
            " network alone: torch.jit.trace(network, images)"
        )
