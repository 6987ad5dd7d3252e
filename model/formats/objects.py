"""Objects in the pickles of a checkpoint: which a file names, and how a reader skips them."""

from __future__ import annotations

import _compat_pickle
import contextlib
import pickletools
import re
import zipfile
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch

from model.errors import CheckpointError

_OLD_PICKLES = 5  # in a file without an archive: two numbers, the machine, the content, the names of storages
# What PyTorch's restricted reader calls although a few bytes make it take any amount of memory
_UNBOUNDED = re.compile(r"builtins\.bytearray|torch(\.\w+)*\.\w*Tensor|torch\._utils\._rebuild_device_tensor_from_\w+")
_TEXT_ENCODER = "_codecs.encode"
_LENGTHENING = {"hex", "hex_codec", "base64", "base64_codec", "base_64", "quopri", "quopri_codec", "uu", "uu_codec"}
_LENGTHENING |= {"quoted_printable", "quotedprintable"}


def named_objects(path: Path) -> set[str]:
    """Classes and functions that the pickles in a file of ``torch.save`` name, such as ``argparse.Namespace``.

    Raises:
        CheckpointError: one of them would take any amount of memory.
        ValueError: a pickle is damaged.
    """
    names, texts = set[str](), set[str]()
    for opcode, argument, _ in _operations(path):
        if opcode.name == "GLOBAL":
            names.add(_python_3(*argument.split(" ", 1)))
        elif isinstance(argument, str) and len(argument) < 20:
            texts.add(re.sub(r"\W", "_", argument.lower()))
    unbounded = sorted(name for name in names if _UNBOUNDED.fullmatch(name))
    if _TEXT_ENCODER in names and texts & _LENGTHENING:
        unbounded.append(_TEXT_ENCODER)
    if unbounded:
        raise CheckpointError(
            f"{path}: refused: it calls {unbounded[0]}, which may take any amount of memory; save tensors alone:"
            " torch.save(network.state_dict(), ...)"
        )
    return names


def _operations(path: Path) -> Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith("data.pkl"):
                    with archive.open(member) as pickled:
                        yield from pickletools.genops(pickled)
        return
    with open(path, "rb") as stream:
        for _ in range(_OLD_PICKLES):
            if stream.peek(1):
                yield from pickletools.genops(stream)


def _python_3(module: str, name: str) -> str:
    """A name as Python 3 has it; ``torch.save`` writes Python 2's."""
    module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
    return f"{_compat_pickle.IMPORT_MAPPING.get(module, module)}.{name}"


class _SkippedObject:
    """Stands for every class and function that a file names. Calling it runs nothing of the file's."""

    def __new__(cls, *arguments: object) -> Any:
        return Counter()  # a dict whose items and fields PyTorch's restricted reader sets


class _SkippedTuple:
    """Stands for classes whose state is a tuple: NumPy's and partial functions."""

    def __new__(cls, *arguments: object) -> Any:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


@contextlib.contextmanager
def skipping(names: Collection[str]) -> Iterator[None]:
    """Lets ``torch.load(weights_only=True)`` skip objects with these names.

    Each becomes an empty dict whose attributes are the object's fields. PyTorch's own names keep their meaning, and
    modules that it blocks, such as ``os``, stay an error.
    """
    tuples = ("numpy.", "functools.partial")
    stand_ins = [(_SkippedTuple if name.startswith(tuples) else _SkippedObject, name) for name in names]
    with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
        yield
