"""JSON records with a checksum."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shards.errors import ShardError
from shards.files import digest, write_bytes


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Writes ``record`` as JSON, with a field ``digest`` over all other fields."""
    text = json.dumps({**record, "digest": digest(record)}, indent=1, sort_keys=True)
    write_bytes(path, (text + "\n").encode())


def read_record(path: Path) -> dict[str, Any]:
    """Reads a file that ``write_record`` wrote; the result has no ``digest``.

    Raises:
        ShardError: the file is absent, cannot be read, is not JSON, or does not match its digest.
    """
    if path.exists() and not path.is_file():  # a pipe would block
        raise ShardError(f"{path}: not a regular file; build again into an empty --out")
    try:
        record = json.loads(path.read_bytes())
        stated = record.pop("digest")
        found = digest(record)
    except FileNotFoundError:
        raise ShardError(f"{path}: not found") from None
    except OSError as error:
        raise ShardError(f"{path}: {error.strerror or error}") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise ShardError(
            f"{path}: damaged, or not a JSON record of this tool; build again into an empty --out"
        ) from None
    if stated != found:
        raise ShardError(f"{path}: damaged or edited (digest mismatch); build again into an empty --out")
    return record


def check_fields(path: Path, record: dict[str, Any], types: Mapping[str, type]) -> None:
    """Validates the fields of a record that ``types`` names; integers must not be negative.

    A record with a valid digest may still come from anywhere.

    Raises:
        ShardError: a field is missing or of the wrong type.
    """
    for name, kind in types.items():
        value = record.get(name)
        if type(value) is not kind or (isinstance(value, int) and value < 0):
            found = reprlib.repr(value) if name in record else "missing"
            expected = "an integer from 0" if kind is int else f"of type {kind.__name__}"
            raise ShardError(f"{path}: {name[:40]} is {found}, expected {expected}; build again into an empty --out")
