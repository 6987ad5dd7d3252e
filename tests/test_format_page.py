"""The page about the shard format is enough to write a reader."""

from __future__ import annotations

import hashlib
import io
import json
import re
import struct
import tarfile
import urllib.parse

import pyarrow.parquet as pq
import pytest
import xxhash
from PIL import Image

from pipeline.build import build, options_for
from shards.schema import INDEX_SCHEMA, ROW_SCHEMA
from tests.documents import table_of
from tests.processes import REPOSITORY

FORMAT = REPOSITORY / "docs" / "format.md"


class Reader:
    """Reads a shard set as docs/format.md specifies it, without any code of this repository."""

    def __init__(self, root):
        self.root = root
        self.manifest = self.record("manifest.json")
        assert self.manifest["format_version"] == 1

    def record(self, name):
        """The fields of a record whose digest matches."""
        fields = json.loads((self.root / name).read_bytes())
        digest = fields.pop("digest")
        canonical = json.dumps(fields, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(canonical.encode()).hexdigest() == digest, name
        return fields

    def facts(self, name):
        data = (self.root / name).read_bytes()
        return {
            "size": len(data),
            "xxh3": f"{xxhash.xxh3_64_intdigest(data):016x}",
            "sha256": hashlib.sha256(data).hexdigest(),
        }

    def table(self, name):
        return pq.read_table(self.root / name).to_pylist()

    def members(self, shard):
        """(stem, JPEG, its offset, label, its offset and size) of each stored image, in tar order."""
        with tarfile.open(self.root / f"shard-{shard:06d}.tar", "r:") as tar:
            found = tar.getmembers()
            for image, label in zip(found[::2], found[1::2], strict=True):
                stem, dot, suffix = image.name.rpartition(".")
                assert (dot + suffix, label.name) == (".jpg", f"{stem}.cls")
                data, text = tar.extractfile(image).read(), tar.extractfile(label).read()
                yield stem, data, image.offset_data, text.decode("ascii"), label.offset_data, len(text)


def stem_of(key):
    """Rules 1 to 3 of the page, and the hash of keys that do not fit, by hand."""
    if re.fullmatch("[A-Za-z0-9_-]{1,80}/[A-Za-z0-9_-]{1,80}", key):
        return key
    folder, _, name = key.partition("/")
    kept = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-~"

    def encoded(text, kept):
        return "".join(chr(byte) if chr(byte) in kept else f"%{byte:02X}" for byte in text.encode())

    before, after = encoded(folder, kept) + "/", encoded(name, kept.replace(".", ""))
    return before + after if len(before) <= 150 and len(after) <= 90 else xxhash.xxh3_128_hexdigest(key.encode())


KEYS = [
    "plain/0001_01",
    "plain/0001_02",
    "Anna B./image 1.0",
    "Anna B./a~b+c%20",
    "Zo\u00eb/\u00fc",
    "plain/long" + "x" * 90,
    "a/" + "\u4e2d" * 9,
    "y" * 90 + "/" + "z" * 60,
    "few/only one",
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A set of two shards with awkward names and a row of every status that a landmark file can give."""
    folder = tmp_path_factory.mktemp("format")
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((90, 100)).convert("RGB").save(stream, "JPEG")
    for key in [*KEYS, "plain/broken", "plain/excluded", "gone/but present"]:
        path = folder / "faces" / f"{key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"no image" if key == "plain/broken" else stream.getvalue())
    face = "30,40,60,40,45,58,33,75,57,75"
    rows = [f'"{key}",{face}' for key in [*KEYS, "plain/broken", "plain/excluded", "gone/missing"]]
    rows += [f"plain/0001_01,{face}", "plain/nan,,40,60,40,45,58,33,75,57,75", f"../too/high,{face}"]
    rows += ["plain/one-point" + ",5" * 10, f"plain/.hidden,{face}"]
    (folder / "landmarks.csv").write_text("\n".join([f"NAME_ID,{','.join(POINTS)}", *rows]) + "\n", encoding="utf-8")
    (folder / "exclude.txt").write_text("plain/excluded\n")
    options = options_for(
        "folder",
        root=folder / "faces",
        landmarks=(folder / "landmarks.csv",),
        template=None,
        out=folder / "shards",
        exclude=folder / "exclude.txt",
        images_per_shard=7,
        executor="serial",
    )
    build(options)
    return folder / "shards"


POINTS = [f"P{point}{axis}" for point in range(1, 6) for axis in "XY"]


def test_a_reader_written_from_the_page_reads_a_set(root):
    reader = Reader(root)
    manifest = reader.manifest
    assert manifest["shards"] == 2
    rows, fingerprints = [], set()
    for shard in range(manifest["shards"]):
        name = f"shard-{shard:06d}"
        assert manifest["files"][f"{name}.done.json"] == reader.facts(f"{name}.done.json")
        done = reader.record(f"{name}.done.json")
        assert done["files"] == {
            f"{name}.{suffix}": reader.facts(f"{name}.{suffix}") for suffix in ("tar", "idx", "parquet")
        }
        found = reader.table(f"{name}.parquet")
        stored = [row for row in found if row["status"] == "ok"]
        assert (done["shard"], done["rows"], done["images"]) == (shard, len(found), len(stored))
        index = [f"v1.2 {len(stored)}"]
        for row, member in zip(stored, reader.members(shard), strict=True):
            stem, jpeg, offset, label, label_offset, label_size = member
            assert stem == stem_of(row["key"])
            assert urllib.parse.unquote(stem) == row["key"] or "/" not in stem
            assert (label, offset, len(jpeg)) == (str(row["label"]), row["offset"], row["size"])
            assert xxhash.xxh3_64_intdigest(jpeg) == row["xxh3"]
            index.append(f"jpg {offset} {len(jpeg)} {stem}.jpg cls {label_offset} {label_size} {stem}.cls")
        assert (root / f"{name}.idx").read_text() == "\n".join(index) + "\n"
        rows += found
        fingerprints.add(done["fingerprint"])
    plan = reader.record("plan.json")
    canonical = json.dumps(plan["parts"], sort_keys=True, separators=(",", ":"))
    assert fingerprints == {manifest["fingerprint"], hashlib.sha256(canonical.encode()).hexdigest()}

    stored = [row for row in rows if row["status"] == "ok"]
    assert {row["key"] for row in stored} == set(KEYS)
    assert manifest["files"]["index.parquet"] == reader.facts("index.parquet")
    expected = sorted(stored, key=lambda row: (row["label"], row["key"].encode()))
    expected = [{name: value for name, value in row.items() if "status" not in name} for row in expected]
    assert [{**row, "error_message": None} for row in reader.table("index.parquet")] == expected
    usable = [row for row in rows if row["status"] in ("ok", "missing-file", "unreadable-image")]
    names = sorted({row["identity"] for row in usable}, key=str.encode)
    assert {row["identity"]: row["label"] for row in usable} == {name: label for label, name in enumerate(names)}
    assert {row["label"] for row in rows if row["identity"] not in names} == {-1}
    assert (manifest["identities"], manifest["empty_identities"]) == (len(names), 1)
    counts = {status: sum(row["status"] == status for row in rows) for status in {row["status"] for row in rows}}
    assert (manifest["statuses"], manifest["rows"], manifest["images"]) == (counts, len(rows), len(stored))


def test_rejected_rows_are_as_the_page_says(root):
    rows = [row for shard in (0, 1) for row in Reader(root).table(f"shard-{shard:06d}.parquet")]
    rejected = [row for row in rows if row["status"] != "ok"]
    found = {row["key"][:15]: row["status"] for row in rejected}
    assert found == {
        "plain/broken": "unreadable-image",
        "plain/excluded": "excluded",
        "gone/missing": "missing-file",
        "plain/0001_01": "duplicate-key",
        "plain/nan": "bad-landmarks",
        "../too/high": "bad-key",
        "plain/one-point": "degenerate-landmarks",
        "plain/.hidden": "bad-key",
    }
    assert all(row["error_message"] for row in rejected)
    assert {row[name] for row in rejected for name in ("offset", "size", "xxh3")} == {None}


def test_stored_images_are_as_the_page_says(root):
    reader = Reader(root)
    spec = reader.manifest["preprocessing"]
    jpegs = [member[1] for shard in (0, 1) for member in reader.members(shard)]
    assert len(jpegs) == len(KEYS)
    for jpeg in jpegs:
        with Image.open(io.BytesIO(jpeg)) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (spec["size"], spec["size"]))
        assert b"\xff\xc0" in jpeg  # baseline
        start = jpeg.index(b"\xff\xc0")
        assert struct.unpack_from("BBB", jpeg, start + 11)[0] == 0x22  # luma sampled 2 x 2, chroma once: 4:2:0


def test_the_column_table_is_the_schema():
    types = {"float32": "float", "list of float32": "list<element: float>"}
    rows = [
        (name.strip("`"), types.get(kind, kind), null == "yes")
        for name, kind, null, _ in table_of(FORMAT, "## Parquet columns")
    ]
    fields = [(field.name, str(field.type).replace("item:", "element:"), field.nullable) for field in ROW_SCHEMA]
    assert rows == fields
    assert ROW_SCHEMA.names[: len(INDEX_SCHEMA.names)] == INDEX_SCHEMA.names
