"""Files of ``torch.export.save``: loaded by PyTorch from a copy without anything that it would execute.

PyTorch's reader unpickles, evaluates expressions and compiles guards that it finds in such a file. The copy has the graph,
whose names, operators and expressions are checked, and plain tensors.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from model.errors import DAMAGE_ERRORS, CheckpointError, one_line
from model.formats.graphs.found import FoundGraph, check_batch, choose_spec
from model.formats.graphs.modules import TorchGraph
from model.formats.graphs.script import member_names
from model.graph import file_hash
from pipeline.spec import Preprocessing
from shards.messages import printable
from shards.process_setting import ignored_warnings

MAX_JSON_BYTES = 1 << 26
_OPERATOR = re.compile(
    r"torch\.ops\.(?:aten|prims)\.(?!save\b|from_file\b)\w+\.\w+"
    r"|_operator\.(?:getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|eq|ne|lt|le|gt|ge)"
    r"|math\.(?:ceil|floor|trunc|sqrt)|torch\.sym_\w+"
)
_SYMBOL = r"'[a-z]+\d+'"
_WORDS = (
    *("Symbol", "Integer", "Float", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CeilDiv", "CleanDiv", "IntTrueDiv"),
    *("TruncToInt", "ToFloat", "Eq", "Ne", "positive", "nonnegative", "negative", "integer", "real", "True", "False"),
)
_EXPRESSION = re.compile(rf"(?:{_SYMBOL}|\b(?:{'|'.join(_WORDS)}|[su]\d+)\b|\b\d+(?:\.\d+)?|\*\*|//|[-+*/(),=<> ])*")
_WORD = re.compile(r"[\w.:-]{0,400}", re.ASCII)  # all other strings: names of nodes, layers and options
_DROPPED: dict[str, Any] = {"metadata": {}, "guards_code": [], "torch_version": ""}  # comments and guards
_CONTEXT = re.compile(r'(?:null|\[[\w", .-]*\])?')  # keys of a dict
_TREE_TYPES = (None, "builtins.tuple", "builtins.list", "builtins.dict")


def is_exported(path: Path) -> bool:
    """Whether a file was written by ``torch.export.save``."""
    names = member_names(path)
    return any(name.endswith(("/archive_format", "/serialized_exported_program.json")) for name in names) or (
        "serialized_exported_program.json" in names
    )


def read_exported(path: Path, given: Preprocessing | None) -> FoundGraph:
    """Loads a file of ``torch.export``.

    Raises:
        CheckpointError: it is damaged, holds what is refused, or is not a network from faces to embeddings.
    """
    try:
        copy = _harmless_copy(path)
        with ignored_warnings():
            program = torch.export.load(copy)
        module, shape = program.module(check_guards=False), _input_shape(program)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, AssertionError, *DAMAGE_ERRORS) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path}: damaged or not of torch.export ({one_line(error)}); export it again") from None
    expected = f"({', '.join(str(side or 'N') for side in shape)})"
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
        raise CheckpointError(f"{path}: takes {expected}, expected one input (N, 3, S, S) of float32")
    spec = choose_spec(path, shape[2], given, expected=expected)
    check_batch(path, shape[0], spec.size)
    graph = TorchGraph(path, module, file_hash(path), shape[0])
    graph.find_output(spec.size)
    return FoundGraph(module=graph, name="torch.export", spec=spec, stated=False)


def _input_shape(program: torch.export.ExportedProgram) -> list[int | None]:
    """The shape of the only input, with None for what the program leaves open."""
    names = program.graph_signature.user_inputs
    found = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    shape = list(found[0].shape) if len(found) == 1 and isinstance(found[0], torch.Tensor) else []
    return [side if isinstance(side, int) else None for side in shape]


def _harmless_copy(path: Path) -> io.BytesIO:
    """Raises: CheckpointError: the file holds what PyTorch would execute."""
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as target:
        members = archive.infolist()
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise CheckpointError(f"{path}: refused: it unpacks to more than its size; save it by torch.export.save")
        if any("aotinductor" in member.filename for member in members):
            raise CheckpointError(f"{path}: refused: it holds compiled code; save it by torch.export.save")
        if not any("/models/" in member.filename for member in members):
            raise CheckpointError(f"{path}: has no models/NAME.json; export it again with PyTorch 2.9 or later")
        for member in members:
            data = b"" if "/sample_inputs/" in member.filename else archive.read(member)
            if member.filename.endswith(".json"):
                data = json.dumps(_checked(path, member.filename, data)).encode()
            target.writestr(member.filename, data)
    copy.seek(0)
    return copy


def _checked(path: Path, name: str, data: bytes) -> object:
    """The content of a JSON file in the archive, without comments and guards."""
    if len(data) > MAX_JSON_BYTES:
        raise CheckpointError(f"{path}: {printable(name)} has {len(data):,} bytes, expected at most {MAX_JSON_BYTES:,}")
    content = json.loads(data)
    for record in _records(content):
        record |= {dropped: empty for dropped, empty in _DROPPED.items() if dropped in record}
    for key, value in _strings(content):
        expression = {"target": _OPERATOR, "expr_str": _EXPRESSION}.get(key, _WORD)
        good = _is_tree(value) if key in ("in_spec", "out_spec") else expression.fullmatch(value)
        if not good:
            raise CheckpointError(
                f"{path}: refused: {printable(name)} has {printable(key)} {printable(value[:80])!r}; export the network alone,"
                " in evaluation mode: torch.export.export(network, (images,))"
            )
    for record in _records(content):
        if record.get("use_pickle"):
            raise CheckpointError(f"{path}: refused: it holds pickled tensors or objects; save plain tensors")
        if record.get("custom_obj_values"):
            raise CheckpointError(f"{path}: refused: it holds objects other than tensors; export the network alone")
    return content


def _records(value: object) -> Iterator[dict[str, Any]]:
    """All objects in a JSON value."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            yield one
            left += one.values()
        elif isinstance(one, list):
            left += one


def _strings(content: object) -> Iterator[tuple[str, str]]:
    """All strings of a JSON value, and the key that each belongs to."""
    left = [("", content)]
    while left:
        key, value = left.pop()
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, list):
            left += [(key, one) for one in value]
        elif isinstance(value, dict):
            left += value.items()
            left += [("", name) for name in value]


def _is_tree(text: str) -> bool:
    """Whether a string describes nested tuples, lists and dictionaries, and nothing else."""
    try:
        left = [json.loads(text)[1]]
    except (ValueError, LookupError, TypeError, RecursionError):
        return False
    while left:
        node = left.pop()
        if not isinstance(node, dict) or node.get("type") not in _TREE_TYPES:
            return False
        context = node.get("context")
        if not isinstance(context, str | None) or not _CONTEXT.fullmatch(context or ""):
            return False
        left += node.get("children_spec") or []
    return True
