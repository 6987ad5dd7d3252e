"""Several processes embed together: batches, order, unusable images and counts are those of one process."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from benchmarks.engine.cache import EmbeddingCache
from benchmarks.engine.runner import Engine
from benchmarks.engine.team import BLOCK_BATCHES, Team, blocks_of
from pipeline.prepare import Request
from pipeline.progress import Progress
from shards.errors import LrfrError
from tests.benchmarks.runs import Recorder

SIZES = (None, 8, 12, 16, 20)


@pytest.fixture
def requests(demo):
    """Five requests of each image, some of which are unusable."""
    images = sorted((demo("QMUL-SurvFace") / "Face_Verification_Test_Set" / "verification_images").iterdir())
    images[3].write_bytes(b"nonsense")
    images[11].unlink()
    return [Request(path=path, down=down) for down in SIZES for path in images]


class Batches:
    """Embeds, and records the batches as bytes."""

    def __init__(self):
        self.seen = []

    def __call__(self, batch):
        self.seen.append(batch.tobytes())
        return Recorder()(batch)


def team_of(others):
    """A team whose other processes, engines, work in this one; what goes between processes is pickled."""

    def share(job, work):
        job = pickle.loads(pickle.dumps(job))
        parts = [work(), *(one.embed_share(job, rank, len(others) + 1) for rank, one in enumerate(others, 1))]
        return pickle.loads(pickle.dumps(parts))

    return Team(size=len(others) + 1, share=share)


@pytest.mark.parametrize(("size", "batch_size"), [(2, 3), (3, 2), (3, 64), (5, 1)])
def test_a_team_embeds_as_one_process_does(requests, size, batch_size):
    embeds = [Batches() for _ in range(size + 1)]
    alone = Engine(embed=embeds[0], batch_size=batch_size)
    first, *others = (Engine(embed=embed, batch_size=batch_size) for embed in embeds[1:])
    first = Engine(embed=first.embed, batch_size=batch_size, team=team_of(others))
    one, several = (engine.embed_all(requests, Progress("test", len(requests))) for engine in (alone, first))
    assert (one.computed, one.cached) == (several.computed, several.cached) == (one.valid.sum(), 0)
    assert len(one.missing) == 2
    assert list(map(str, one.missing.items())) == list(map(str, several.missing.items()))
    assert one.valid.tolist() == several.valid.tolist()
    np.testing.assert_array_equal(one.vectors, several.vectors)
    assert sorted(embeds[0].seen) == sorted(batch for embed in embeds[1:] for batch in embed.seen)
    busy = sum(bool(embed.seen) for embed in embeds[1:])
    assert busy == min(size, -(-len(requests) // (BLOCK_BATCHES * batch_size)))


def test_progress_of_a_team_reaches_the_end(requests):
    progress = Progress("test", len(requests))
    engine = Engine(embed=Recorder(), batch_size=2, team=team_of([Engine(embed=Recorder(), batch_size=2)]))
    engine.embed_all(requests, progress)
    assert progress.n == len(requests)


def test_processes_of_a_team_share_the_cache(requests, tmp_path):
    def embed_all():
        with EmbeddingCache(tmp_path / "cache") as mine, EmbeddingCache(tmp_path / "cache") as theirs:
            other = Engine(embed=Recorder(), batch_size=2, cache=theirs)
            engine = Engine(embed=Recorder(), batch_size=2, cache=mine, team=team_of([other]))
            return engine.embed_all(requests, Progress("test", len(requests)))

    first, second = embed_all(), embed_all()
    assert (first.cached, second.computed) == (0, 0)
    assert second.cached == first.computed > 0
    np.testing.assert_array_equal(first.vectors, second.vectors)


def test_a_file_that_fails_for_one_process_fails_for_all(requests):
    """Another process may have embedded other requests of the file, or all of them read it before it was damaged."""
    team = team_of([Engine(embed=Recorder(), batch_size=1)])

    def share(job, work):
        parts = team.share(job, work)
        parts[1].missing[job.requests[0].name] = LrfrError("damaged")
        return parts

    engine = Engine(embed=Recorder(), batch_size=1, team=Team(size=2, share=share))
    found = engine.embed_all(requests, Progress("test", len(requests)))
    lost = [row for row, request in enumerate(requests) if request.name in found.missing]
    assert len(lost) == 3 * len(SIZES)
    assert next(iter(found.missing)) == requests[0].name
    assert not found.valid[lost].any()
    assert not found.vectors[lost].any()
    assert found.computed == found.valid.sum() == len(requests) - len(lost)


def test_requests_of_one_file_are_neighbours():
    requests = [Request(path=path, down=down) for down in (8, 12) for path in ("a", "b", "c")]
    rows, blocks = blocks_of(requests, 1)
    assert list(rows.values()) == [[0, 3], [1, 4], [2, 5]]
    assert blocks.tolist() == [0, 0, 1, 0, 0, 1]
