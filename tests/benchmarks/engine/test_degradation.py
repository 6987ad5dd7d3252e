"""Benchmarks under realistic low resolution: ``bench --degrade``."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import cli
from benchmarks import BENCHMARKS
from benchmarks.engine.cache import EmbeddingCache
from benchmarks.engine.runner import Engine, run
from benchmarks.errors import ProtocolError
from benchmarks.report.labels import network_labels
from benchmarks.scoring.comparison import Comparison, Network, compare_networks, same_protocol
from pipeline.degradation.presets import find_degradation
from pipeline.prepare import cache_key, prepare
from pipeline.spec import Preprocessing
from tests.benchmarks.runs import FACTS, Recorder

SURVEILLANCE = find_degradation("surveillance")


@pytest.fixture
def lfw(demo):
    return BENCHMARKS["lfw"].read(demo("LFW"), ())


def scored(protocol, facts=FACTS, **engine):
    embed = Recorder()
    result = run(protocol, Engine(embed=embed, **engine), checkpoint=facts, intervals=False)
    return result, embed.images


def test_images_at_a_size_are_degraded_and_no_others(lfw):
    clean, before = scored(lfw)
    result, after = scored(lfw.degraded(SURVEILLANCE))
    assert len(before) == len(after) == len(lfw.requests)
    changed = [not np.array_equal(*pair) for pair in zip(before, after, strict=True)]
    assert changed == [request.down is not None for request in lfw.requests]
    assert result.metrics["accuracy@128"] == clean.metrics["accuracy@128"]
    assert result.metrics["auc@8"] != clean.metrics["auc@8"]
    assert result.caveats == ["generated faces"]
    assert result.notes == [
        f"degradation: surveillance, digest {SURVEILLANCE.digest}, drawn by the content of each image file"
    ]
    assert (
        dataclasses.replace(lfw, root=lfw.root / "lfw").degraded(SURVEILLANCE).caveat
        == "images degraded by surveillance"
    )


def test_pixels_depend_on_the_file_and_the_size_alone(lfw):
    protocol = lfw.degraded(SURVEILLANCE)
    _, images = scored(protocol)
    backwards = dataclasses.replace(protocol, requests=protocol.requests[::-1], members={})
    alone = [prepare(one.read(), [one], Preprocessing())[0] for one in protocol.requests[:20]]
    assert all(np.array_equal(*pair) for pair in zip(alone, images, strict=False))
    embed = Recorder()
    from pipeline.progress import Progress

    with Progress("test", len(backwards.requests), "preparations") as progress:
        Engine(embed=embed, batch_size=7).embed_all(backwards.requests, progress)
    assert sorted(image.tobytes() for image in embed.images) == sorted(image.tobytes() for image in images)


def test_cached_embeddings_are_not_those_of_clean_images(lfw, tmp_path):
    protocol = lfw.degraded(SURVEILLANCE)
    downs = sum(request.down is not None for request in lfw.requests)
    counts = []
    for each in (lfw, protocol, protocol, lfw, lfw.degraded(find_degradation("webcam"))):
        with EmbeddingCache(tmp_path / "cache") as cache:
            counts.append(scored(each, cache=cache)[0].counts["embedded"])
    assert counts == [len(lfw.requests), downs, 0, 0, downs]


def test_without_a_preset_keys_are_those_of_earlier_versions(lfw):
    request = dataclasses.replace(lfw.requests[1], path="x", place="")
    assert request.down is not None
    assert list(request.preparation) == ["points", "points_size", "side", "down"]
    degraded = dataclasses.replace(request, degradation=SURVEILLANCE)
    assert degraded.preparation == {**request.preparation, "degradation": SURVEILLANCE.digest}
    assert cache_key(b"", degraded, Preprocessing()) != cache_key(b"", request, Preprocessing())
    full = dataclasses.replace(degraded, down=None)
    assert full.preparation == dataclasses.replace(request, down=None).preparation


def test_clean_and_realistic_results_are_paired_and_distinguished(lfw):
    facts = {**FACTS, "degradation": "surveillance"}
    clean, realistic = scored(lfw)[0], scored(lfw.degraded(SURVEILLANCE), facts)[0]
    assert same_protocol(clean, realistic)
    (comparison,), _ = compare_networks([Network(path=lfw.root, results={"lfw": one}) for one in (clean, realistic)])
    assert isinstance(comparison, Comparison)
    labels = network_labels([clean.checkpoint, realistic.checkpoint])
    assert labels == ["spherenet4, step 7", "spherenet4, step 7, surveillance"]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_benchmarks_that_degrade_images_are_those_with_the_option(demo, name):
    benchmark = BENCHMARKS[name]
    demo("LFW")  # whose landmarks are those of XQLFW
    protocol = benchmark.read(demo(benchmark.folder))
    options = [option.name for option in cli.main.commands["bench"].commands[name].params]
    assert ("degrade" in options) == benchmark.degrades
    if benchmark.degrades:
        assert protocol.degraded(SURVEILLANCE)
    else:
        with pytest.raises(ProtocolError, match=f"bench {name}: degrades no images, it compares them at the size"):
            protocol.degraded(SURVEILLANCE)
