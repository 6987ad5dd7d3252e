#!/usr/bin/env python3
"""Time of reading a shard set from an object store: a cold start against a plain copy, and the loader with a warm cache.

    python tools/store_cost.py [--images 80000] [--shards 16] [--rounds 5]

The store is moto's server in a separate process on this machine (extra [dev]). All variants are timed alternately. "Plain copy"
writes the objects to files without checks, with as many requests in flight as the cache; "cold cache" ends when every tar has
arrived and is verified, and "cold start" when the loader has also delivered its first batch. The warm loader and that of a
folder deliver batches of the reference's training, without training.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.report.document import Grid, as_text
from benchmarks.speed.faces import Setup
from pipeline.load.loader import Loader
from pipeline.spec import Preprocessing
from shards.attempts import in_flight
from shards.cache import CachedSet
from shards.fetch_queue import FETCHES
from shards.files import write_record
from shards.finish import finish_set
from shards.index import ShardIndex
from shards.schema import PLAN
from shards.store import Store
from shards.writer import Row, ShardWriter
from tools.arguments import positive
from tools.scale import jittered_faces

FACES, SIDE_PX = 256, 128
IMAGES_OF_IDENTITY = 20
BATCH, BATCHES = 128, 12
URL = "s3://faces/set"


def make_set(out: Path, images: int, shards: int, scratch: Path) -> ShardIndex:
    """A shard set of generated faces, which repeat."""
    faces = jittered_faces(Setup(root=None, scratch=scratch, rounds=1, quick=True).data_sets(), FACES)
    jpegs = [cv2.imencode(".jpg", cv2.resize(one.image, (SIDE_PX, SIDE_PX)))[1].tobytes() for one in faces]
    out.mkdir()
    records = []
    for shard in range(shards):
        with ShardWriter(out, shard, "made") as writer:
            for number in range(images * shard // shards, images * (shard + 1) // shards):
                label = number % (images // IMAGES_OF_IDENTITY)
                name = f"n{label:06d}"
                writer.add(Row(key=f"{name}/{number:07d}", identity=name, label=label), jpegs[number % len(jpegs)])
            records.append(writer.commit())
    write_record(out / PLAN, {"root": str(out), "parts": {}})
    spec, identities = Preprocessing().to_dict(), images // IMAGES_OF_IDENTITY
    finish_set(
        out, records, fingerprint="made", source="folder", identities=identities, preprocessing=spec, versions={}
    )
    return ShardIndex(out)


@contextlib.contextmanager
def server() -> Iterator[None]:
    """Runs moto's server, and points the environment at it."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    endpoint = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(urllib.request.Request(f"{endpoint}/faces", method="PUT")).close()
                break
            time.sleep(0.1)
        access = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        os.environ.update(access)
        yield
    finally:
        process.terminate()
        process.wait()


def plain_copy(names: list[str], out: Path) -> None:
    """Copies objects as obstore gives them."""
    import obstore

    from shards.connection import connected

    store = connected(URL)

    def copy(name: str) -> None:
        with open(out / name, "wb") as stream:
            for block in obstore.get(store, name).stream(min_chunk_size=1 << 20):
                stream.write(block)

    out.mkdir()
    list(in_flight(copy, names, FETCHES))


def cold_cache(cache: Path) -> None:
    """Opens the set with an empty cache; ends when all tars are there."""
    with CachedSet(URL, folder=cache) as index:
        assert index.cache
        index.cache.want(np.arange(index.manifest.shards))
        while index.cache.missing().any():
            time.sleep(0.02)


def cold_start(cache: Path) -> None:
    """Opens the set with an empty cache; ends when all tars are there and the loader has given a batch."""
    with CachedSet(URL, folder=cache) as index, Loader(index, batch_size=BATCH) as loader:
        next(loader)
        while index.cache and index.cache.missing().any():
            time.sleep(0.02)


def timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def batches(loader: Loader) -> None:
    for _ in range(BATCHES):
        next(loader)


def measure(local: ShardIndex, rounds: int, scratch: Path) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of the copies; seconds of ``BATCHES`` batches, of the two loaders."""
    names = sorted(path.name for path in local.root.glob("*.tar"))
    contenders = {
        "plain copy": lambda path: plain_copy(names, path),
        "cold cache": cold_cache,
        "cold start": cold_start,
    }
    copies: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            path = scratch / "copy"
            with contextlib.redirect_stderr(io.StringIO()):
                copies[name].append(timed(lambda: work(path)))  # noqa: B023
            shutil.rmtree(path)
    warm: dict[str, list[float]] = {"folder": [], "cache": []}
    with contextlib.redirect_stderr(io.StringIO()):
        cold_start(scratch / "cache")
        with (
            CachedSet(URL, folder=scratch / "cache") as index,
            Loader(index, batch_size=BATCH) as cached,
            Loader(local, batch_size=BATCH) as plain,
        ):
            for number in range(rounds + 1):
                for name, loader in (("folder", plain), ("cache", cached)):
                    taken = timed(lambda: batches(loader))  # noqa: B023
                    warm[name] += [taken] if number else []  # the first round opens shards and fills queues
    return copies, warm


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=positive, default=80_000)
    parser.add_argument("--shards", type=positive, default=16)
    parser.add_argument("--rounds", type=positive, default=5)
    options = parser.parse_args()
    if options.images < options.shards:
        parser.error("--images must be --shards at least")
    with tempfile.TemporaryDirectory() as folder, server():
        scratch = Path(folder)
        local = make_set(scratch / "set", options.images, options.shards, scratch)
        store = Store(URL)
        list(in_flight(lambda path: store.upload(path, path.name), sorted(local.root.iterdir())))
        copies, warm = measure(local, options.rounds, scratch)
        size = sum(path.stat().st_size for path in local.root.glob("*.tar")) / 1e6
    images = BATCHES * BATCH * 4
    found = [(name, seconds, size, "MB/s") for name, seconds in copies.items()]
    found += [(f"loader, {name}", seconds, images, "images/s") for name, seconds in warm.items()]
    rows = [
        [name, f"{min(s):.2f}", f"{np.median(s):.2f}", f"{work / min(s):.0f} {unit}"] for name, s, work, unit in found
    ]
    header = ["", "fastest, s", "median, s", "at its fastest"]
    print(as_text(Grid(caption=f"{size:.0f} MB in {options.shards} tars", header=header, rows=rows)))


if __name__ == "__main__":
    main()
