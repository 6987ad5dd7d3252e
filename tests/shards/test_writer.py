"""The shard format: other libraries read it, and equal input gives equal bytes."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
import webdataset
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.spec import Preprocessing
from shards.errors import ShardError
from shards.files import read_record, write_record
from shards.schema import Manifest
from shards.writer import Row, ShardWriter, _header, member_stem


def rows_of(shard_set):
    return pq.read_table(shard_set / "index.parquet").to_pylist()


def test_offsets_and_hashes_lead_to_jpegs(shard_set):
    rows = rows_of(shard_set)
    assert len(rows) == 45
    for row in rows:
        with open(shard_set / f"shard-{row['shard']:06d}.tar", "rb") as tar:
            tar.seek(row["offset"])
            image = Image.open(io.BytesIO(tar.read(row["size"])))
        assert (image.size, image.mode, image.format) == ((128, 128), "RGB", "JPEG")


def test_index_is_sorted_by_label_then_key(shard_set):
    rows = rows_of(shard_set)
    assert [(row["label"], row["key"]) for row in rows] == sorted((row["label"], row["key"]) for row in rows)
    assert sorted({row["identity"] for row in rows}) == [f"n{person:06d}" for person in range(1, 10)]
    assert all(row["label"] == int(row["identity"][1:]) - 1 for row in rows)


def test_jpegs_are_baseline_quality_95_with_chroma_halved(shard_set):
    with tarfile.open(shard_set / "shard-000000.tar") as tar:
        data = tar.extractfile(tar.next()).read()
    image = Image.open(io.BytesIO(data))
    assert "progressive" not in image.info
    assert [layer[1:3] for layer in image.layer] == [(2, 2), (1, 1), (1, 1)]
    reference = io.BytesIO()
    image.save(reference, "JPEG", quality=95)
    assert image.quantization == Image.open(reference).quantization


@given(st.text("abcXYZ019/_-%.", min_size=1, max_size=120), st.integers(0, (1 << 33) - 1))
def test_headers_equal_those_of_tarfile(name, size):
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    try:
        expected = info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict")
    except ValueError:  # too long for a header
        return
    assert _header(name, size) == expected


def test_tar_headers_have_no_time_and_no_owner(shard_set):
    with tarfile.open(shard_set / "shard-000000.tar") as tar:
        members = tar.getmembers()
    assert len(members) == 2 * 12
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}


def test_webdataset_reads_it(shard_set):
    urls = [str(path) for path in sorted(shard_set.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert len(samples) == 45
    labels = {row["key"]: row["label"] for row in rows_of(shard_set)}
    assert {sample["__key__"]: sample["cls"] for sample in samples} == labels
    assert samples[0]["jpg"].shape == (128, 128, 3)


@pytest.mark.parametrize("card", [True, False])
def test_huggingface_datasets_reads_it(shard_set, tmp_path, card):
    """By its folder, with other files in it, too; or, without the card, as a set of tars."""
    import datasets

    (shard_set / "contact-sheet.png").write_bytes(b"")
    source = {"path": str(shard_set)}
    if not card:
        (shard_set / "README.md").unlink()
        source = {"path": "webdataset", "data_files": f"{shard_set}/shard-*.tar"}
    loaded = datasets.load_dataset(**source, split="train", cache_dir=str(tmp_path / "cache"))
    labels = {row["key"]: row["label"] for row in rows_of(shard_set)}
    assert len(loaded) == 45
    assert {row["__key__"]: int(row["cls"]) for row in loaded} == labels


def test_dali_reads_it_with_our_index(shard_set):
    from nvidia.dali import fn, pipeline_def

    tars, indexes = ([str(path) for path in sorted(shard_set.glob(f"*.{suffix}"))] for suffix in ("tar", "idx"))

    @pipeline_def(batch_size=45, num_threads=1, device_id=None)
    def reader():
        jpeg, label = fn.readers.webdataset(paths=tars, index_paths=indexes, ext=["jpg", "cls"])
        return fn.decoders.image(jpeg), label

    images, labels = reader().run()
    assert np.asarray(images.as_tensor()).shape == (45, 128, 128, 3)
    read = sorted(int(bytes(np.asarray(labels.at(place))).decode()) for place in range(45))
    assert read == sorted(row["label"] for row in rows_of(shard_set))


def test_pandas_reads_the_rows(shard_set):
    frame = pandas.concat(pandas.read_parquet(path) for path in sorted(shard_set.glob("shard-*.parquet")))
    assert len(frame) == 45
    assert set(frame["status"]) == {"ok"}
    assert frame["landmarks"].map(len).eq(10).all()
    assert frame["matrix"].map(len).eq(6).all()


def test_an_exception_deletes_all_files(tmp_path):
    def write():
        with ShardWriter(tmp_path, 0, "f") as writer:
            writer.add(Row(key="a/b", identity="a", label=0), b"jpeg")
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write()
    assert list(tmp_path.iterdir()) == []


_TEXT = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=260)


@given(_TEXT, _TEXT)
def test_member_names_are_ascii_without_white_space_or_inner_dots_and_fit_a_header(folder, name):
    stem = member_stem(f"{folder.replace('/', '_')}/{name.replace('/', '_')}")
    assert tarfile.TarInfo.frombuf(_header(f"{stem}.jpg", 1), "ascii", "strict").name == f"{stem}.jpg"
    assert stem.isascii()
    assert not any(character.isspace() for character in stem)
    assert "." not in stem.rpartition("/")[2]


def test_ordinary_keys_are_not_changed():
    assert member_stem("n000002/0001_01") == "n000002/0001_01"
    assert member_stem("Robert_Downey_Jr./a b.c") == "Robert_Downey_Jr./a%20b%2Ec"


def test_a_key_too_long_for_a_tar_is_named_by_its_hash():
    assert member_stem("n1/" + "x" * 90) == "n1/" + "x" * 90
    assert member_stem("n" * 149 + "/1") == "n" * 149 + "/1"
    for key in ("n1/" + "x" * 91, "n" * 150 + "/1", "n1/" + "\u00e9" * 31):
        assert member_stem(key) == xxhash.xxh3_128_hexdigest(key.encode())


def test_the_manifest_describes_the_set(shard_set):
    manifest = Manifest.read(shard_set)
    assert (manifest.images, manifest.rows, manifest.identities, manifest.shards) == (45, 45, 9, 4)
    assert manifest.preprocessing == Preprocessing(template="seed", size=128).to_dict()
    assert manifest.statuses == {"ok": 45}


def test_another_format_version_is_refused(shard_set):
    record = read_record(shard_set / "manifest.json")
    write_record(shard_set / "manifest.json", {**record, "format_version": 99})
    with pytest.raises(ShardError, match=r"manifest\.json: format version 99, expected 1; build the shards again"):
        Manifest.read(shard_set)
