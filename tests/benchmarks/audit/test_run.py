"""A whole audit: known faults are found, nothing else is, and the files say so."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks.audit.run import audit_set
from benchmarks.engine.cache import EmbeddingCache
from benchmarks.errors import ProtocolError
from pipeline.build.exclusions import read_exclusions
from pipeline.spec import Preprocessing
from shards.errors import ShardError
from shards.index import ShardIndex
from tests.benchmarks.audit.faulty import Faulty, benchmark, changed, picture
from tests.pages import Page
from tests.shard_sets import flip_bit


def audit(faulty, shards, against=(), requests=None, **changes):
    out = faulty.root / "audit"
    summary = audit_set(shards, faulty.engine(shards, requests, **changes), out, against, {"path": "x.pt"})
    return summary, pq.read_table(out / "audit.parquet").to_pylist(), out


def found(rows, finding, *names):
    return {tuple(row[name] for name in names) for row in rows if row["finding"] == finding}


@pytest.mark.heavy
def test_nothing_is_found_in_a_clean_set(clean):
    summary, rows, out = audit(clean, clean.build())
    assert rows == []
    assert summary[0].endswith("150 images of 30 identities")
    assert summary[1].startswith("wrong-label: 0 images, 0 excluded; an estimated 0.0")
    assert summary[2] == "same-person: 0 pairs of identities"
    assert summary[3].startswith(
        "same-photograph: 0 pairs of images, 0 under two names, 0 excluded; correlation from 0."
    )
    assert sorted(os.listdir(out)) == ["audit.html", "audit.parquet", "exclude.txt"]
    assert read_exclusions(out / "exclude.txt").entries == []


def test_planted_faults_are_found_and_nothing_else(faulty):
    summary, rows, out = audit(faulty, faulty.build())
    labels = found(rows, "wrong-label", "key", "identity", "other_identity", "excluded")
    assert labels == {
        ("n003/wrong", "n003", "n017", True),
        ("n004/stranger", "n004", None, True),
        ("n008/copy", "n008", "n007", True),
    }
    assert found(rows, "same-person", "key", "identity", "other_identity", "excluded") == {
        (None, "n005", "n005b", False)
    }
    photographs = found(rows, "same-photograph", "key", "other_key", "excluded")
    assert ("n008/copy", "n007/2", True) in photographs
    assert {frozenset(pair[:2]) for pair in photographs} == {
        frozenset({"n008/copy", "n007/2"}),
        frozenset({"n006/copy", "n006/1"}),
    }
    assert all(row["score"] >= row["threshold"] for row in rows)
    assert set(read_exclusions(out / "exclude.txt").entries) == {"n003/wrong", "n004/stranger", "n008/copy"}
    assert "# n005 n005b" in (out / "exclude.txt").read_text()
    assert summary[1].startswith("wrong-label: 3 images, 3 excluded; an estimated ")
    page = Page(out / "audit.html")
    for text in ("Wrong labels: 3", "One person under two names: 1", "One photograph twice: 2", "x.pt"):
        assert text in page.text
    assert {"n003/wrong", "n017/", "n007/2"} <= {*page.pictures, *(name[:5] for name in page.pictures)}


@pytest.mark.heavy
def test_the_exclusion_list_cleans_the_set(faulty):
    _, _, out = audit(faulty, faulty.build())
    os.rename(faulty.root / "shards", faulty.root / "before")
    shards = faulty.build(exclude=out / "exclude.txt")
    assert len(ShardIndex(shards)) == len(faulty.people) - 3
    _, rows, _ = audit(faulty, shards)
    assert {row["finding"] for row in rows} == {"same-person", "same-photograph"}
    assert found(rows, "same-photograph", "identity", "other_identity") == {("n006", "n006")}


@pytest.mark.heavy
def test_images_and_people_of_a_benchmark_are_found(clean):
    rng = np.random.default_rng(5)
    strangers = {f"s{person}/{number}.png": (500 + person, picture(rng)) for person in range(30) for number in (1, 2)}
    shown = {
        "p9/1.png": (9, picture(rng)),
        "p9/2.png": (9, changed(clean.pictures["n009/3"])),
        "p11/1.png": (11, picture(rng)),
        "p11/2.png": (11, picture(rng)),
    }
    protocol, requests = benchmark(clean.root / "lfw", strangers | shown)
    summary, rows, out = audit(clean, clean.build(), [protocol], requests)
    photographs = found(rows, "benchmark-photograph", "key", "identity", "other_key", "excluded")
    assert photographs == {("n009/3", "n009", "lfw:p9/2.png", True)}
    assert found(rows, "benchmark-person", "key", "identity", "other_key", "excluded") == {
        (None, "n009", "lfw:p9/1.png", True),
        (None, "n011", "lfw:p11/1.png", True),
    }
    assert read_exclusions(out / "exclude.txt").entries == ["n009/3", "n009", "n011"]
    assert summary[-1].startswith(
        "lfw: 1 image of the set also there; 2 identities with a person of it, cosine from 0."
    )
    assert summary[-1].endswith("; all excluded")
    assert "lfw:p11/1.png" in Page(out / "audit.html").pictures
    protocol, requests = benchmark(clean.root / "strangers", strangers)
    summary, _, _ = audit(clean, clean.build(), [protocol], requests)
    assert summary[-1] == "lfw: 0 images of the set also there; 0 identities with a person of it"


@pytest.mark.heavy
def test_names_are_escaped_and_quoted(clean):
    for number, name in enumerate(["<b>x", "# hash", "a #b", '"quoted"', "two\nlines", "Zo\u00eb"]):
        clean.add(f"n00{number}/{name}", 900 + number, picture(np.random.default_rng(100 + number)))
    _, rows, out = audit(clean, clean.build())
    wrong = {key for (key,) in found(rows, "wrong-label", "key")}
    assert wrong == {"n000/<b>x", "n001/# hash", "n002/a #b", 'n003/"quoted"', "n004/two\nlines", "n005/Zo\u00eb"}
    assert set(read_exclusions(out / "exclude.txt").entries) == wrong - {"n004/two\nlines"}
    page = Page(out / "audit.html")
    assert "b" not in page.tags
    assert "n000/<b>x" in page.pictures


@pytest.mark.heavy
def test_a_weak_network_judges_no_label(faulty):
    shards = faulty.build()
    weak = faulty.engine(shards)
    rng = np.random.default_rng(0)

    def embed(images):
        return weak.embed(images) + rng.normal(0, 0.5, (len(images), 64)).astype(np.float32)

    out = faulty.root / "audit"
    summary = audit_set(shards, dataclasses.replace(weak, embed=embed), out, [], {})
    assert summary[1].startswith("wrong-label: not judged, the network is too weak: images are ")
    rows = pq.read_table(out / "audit.parquet").to_pylist()
    assert found(rows, "wrong-label", "key") == set()
    assert len(found(rows, "same-photograph", "key", "other_key")) == 2  # the pictures tell
    assert read_exclusions(out / "exclude.txt").entries == []  # but not, which name is wrong


@pytest.mark.heavy
def test_a_second_audit_takes_the_embeddings_from_the_cache(faulty):
    shards, folder = faulty.build(), faulty.root / "cache"

    def refuse(images):
        raise AssertionError

    with EmbeddingCache(folder) as cache:
        _, first, _ = audit(faulty, shards, cache=cache)
    with EmbeddingCache(folder) as cache:
        engine = dataclasses.replace(faulty.engine(shards), cache=cache, embed=refuse)
        audit_set(shards, engine, faulty.root / "again", [], {})
    assert pq.read_table(faulty.root / "again" / "audit.parquet").to_pylist() == first


@pytest.mark.heavy
def test_images_are_transformed_to_the_template_of_the_network(clean):
    shards, seen = clean.build(), []

    def embed(images):
        seen.extend(images)
        return images.reshape(len(images), -1)[:, ::997].astype(np.float32)

    engine = dataclasses.replace(clean.engine(shards), embed=embed, spec=Preprocessing(template="seed"))
    audit_set(shards, engine, clean.root / "audit", [], {})
    first = next(image for image in seen if image[:, 60:70].std() > 5)
    assert (first[:, -5:] == 0).all()  # the seed's faces lie 9 px farther left: nothing is there
    assert len(seen) == 150


def test_a_network_without_alignment_is_refused(clean):
    engine = dataclasses.replace(clean.engine(clean.build()), spec=Preprocessing.unaligned())
    with pytest.raises(ProtocolError, match=r"the images are aligned .*; choose another network"):
        audit_set(clean.root / "shards", engine, clean.root / "audit", [], {})


@pytest.mark.heavy
def test_a_damaged_image_is_reported(clean):
    shards = clean.build()
    engine, index = clean.engine(shards), ShardIndex(shards)
    flip_bit(shards / "shard-000000.tar", int(index.offset[7]) + 300)
    with pytest.raises(ShardError, match=r"is damaged: its xxh3 does not match; run: .*verify --full"):
        audit_set(shards, engine, clean.root / "audit", [], {})
    assert not (clean.root / "audit" / "audit.parquet").exists()


def test_a_small_set_has_no_findings(tmp_path):
    small, rng = Faulty(tmp_path), np.random.default_rng(0)
    for key in ("n000/0", "n000/1", "n001/0"):
        small.add(key, int(key[3]), picture(rng))
    summary, rows, _ = audit(small, small.build())
    assert rows == []
    assert summary[1] == "wrong-label: too few images to judge labels"
    assert summary[2] == "same-person: fewer than 20 identities, too few to judge"
