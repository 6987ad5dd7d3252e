"""Changes shard sets and gives them new digests: sets that are hostile, but consistent."""

from __future__ import annotations

import pyarrow.parquet as pq

from shards.files import file_facts, read_record, write_record
from shards.schema import INDEX, MANIFEST


def reseal(root):
    """Renews the digests of all files and records."""
    manifest = read_record(root / MANIFEST)
    for path in sorted(root.glob("*.done.json")):
        record = read_record(path)
        write_record(path, {**record, "files": {name: file_facts(root / name) for name in record["files"]}})
    names = [INDEX, *(path.name for path in root.glob("*.done.json"))]
    write_record(root / MANIFEST, {**manifest, "files": {name: file_facts(root / name) for name in names}})


def edit_record(path, **fields):
    """Sets fields of a record, deletes those that are ``...``, and renews its digest."""
    record = {**read_record(path), **fields}
    write_record(path, {name: value for name, value in record.items() if value is not ...})


def edit_column(path, name, values):
    """Replaces a column of a Parquet file by a ``pa.Array``, whatever its type; None removes it."""
    table = pq.read_table(path)
    number = table.schema.get_field_index(name)
    table = table.remove_column(number) if values is None else table.set_column(number, name, values)
    pq.write_table(table, path)
