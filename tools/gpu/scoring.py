"""Scoring and export, and two networks trained and scored."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks import read_benchmark
from benchmarks.engine.runner import Engine, run
from benchmarks.speed import VGGFACE2_IDENTITIES
from benchmarks.speed.timing import cores
from model.embedder import Embedder
from model.errors import import_optional
from model.formats.checkpoint import checkpoint_path, checkpoints
from model.formats.export_onnx import export_onnx
from model.formats.network import LoadedNetwork, load_network
from model.training.config import TrainConfig
from model.training.state import new_run
from pipeline.images.decode import decode_bytes
from pipeline.spec import spec_of
from shards.index import ShardReader
from tools.gpu.machine import REPOSITORY
from tools.gpu.parts import Work
from tools.gpu.report import LEFT_OUT
from tools.gpu.training import measure_training, reference_config

_COSINE = {"fp32": 0.99999, "bf16": 0.99}  # least, of the embedding of an image on the device and on the CPU
_POINTS = 0.02  # that a metric may differ by
_COMPARED, _TIMED = 64, 4096  # images
_SINGLE_IDENTITIES, _SIAMESE_IDENTITIES, _VIEWS = 512, 128, "128,8,12,16"
_PROBE_S = 10.0  # of a training that tells how many steps there is time for


def _network(work: Work) -> LoadedNetwork:
    """A network that an earlier part has trained; otherwise a new one."""
    for name in ("train", "seed"):
        if found := checkpoints(work.scratch / name):
            return load_network(found[-1])
    state = new_run(TrainConfig(), classes=VGGFACE2_IDENTITIES, preprocessing=spec_of(work.index.manifest))
    state.save(work.scratch / "new", 0, {})
    return load_network(checkpoint_path(work.scratch / "new", 0))


def _crops(work: Work, count: int) -> np.ndarray:
    """(count, S, S, 3) uint8 RGB; they repeat if there are fewer."""
    with ShardReader(work.index) as reader:
        crops = [decode_bytes(reader.image(row))[..., ::-1] for row in range(min(count, len(work.index)))]
    return np.stack(list(itertools.islice(itertools.cycle(crops), count)))


def _embedder(network: LoadedNetwork, device: str, precision: str = "fp32") -> Embedder:
    spec = network.spec
    return Embedder(
        network.backbone,
        device=device,
        precision=precision,  # type: ignore[arg-type]
        mean=spec.mean,
        std=spec.std,
        color=spec.color,
    )


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    """The lowest cosine of two embeddings of an image."""
    products = (first * second).sum(1)
    return float((products / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)).min())


def evaluation(work: Work) -> None:
    """Embeddings and LFW, on the device against the CPU."""
    network, crops = _network(work), _crops(work, 8 if work.quick else _COMPARED)
    protocol = read_benchmark("lfw", work.setup.data_sets())
    torch.backends.cudnn.allow_tf32 = False
    expected = _embedder(network, "cpu")(crops)
    place = work.device if work.settings.root else "cpu"  # where all of LFW would take minutes
    base = run(protocol, Engine(embed=_embedder(network, place)), checkpoint={}, intervals=False)
    for precision in ("fp32", "bf16"):
        with work.report.attempt(f"embeddings in {precision}"):
            embed = _embedder(network, work.device, precision)
            cosine = _cosine(embed(crops), expected)
            text = f"cosine to the CPU's at least {cosine:.6f}"
            work.report.check(f"embeddings in {precision}", cosine >= _COSINE[precision], text)
            start = time.perf_counter()
            result = run(protocol, Engine(embed=embed), checkpoint={}, intervals=False)
            seconds = time.perf_counter() - start
            apart = max(abs(value - base.metrics[name]) for name, value in result.metrics.items())
            text = f"{len(result.metrics)} metrics within {apart:.4f} of the {place}'s in fp32, {len(protocol.requests) / seconds:,.0f} images/s"
            if precision == "fp32":
                work.report.check("LFW in fp32", apart <= _POINTS, text)
            else:  # how much it may differ depends on the network and the faces
                work.report.write(f"LFW in {precision}", text)
    torch.backends.cudnn.allow_tf32 = True
    many = _crops(work, 16 if work.quick else _TIMED)
    for precision in ("fp32", "bf16"):
        embed = _embedder(network, work.device, precision)
        for part in (many[:64], many):  # the first warms up
            start = time.perf_counter()
            for first in range(0, len(part), 64):
                embed(part[first : first + 64])
            seconds = time.perf_counter() - start
        work.report.write(f"embedding, {precision}", f"{len(many) / seconds:,.0f} images/s in batches of 64")


def onnx(work: Work) -> None:
    """Export, and ONNX Runtime on the device."""
    runtime = import_optional("onnxruntime")
    network, path, crops = _network(work), work.scratch / "network.onnx", _crops(work, 8)
    parities = export_onnx(network, path, preprocess=False)
    work.report.check("export, on the CPU", all(one.close for one in parities), str(parities[-1]))
    if work.device == "cuda" and "CUDAExecutionProvider" not in runtime.get_available_providers():
        work.report.write("on CUDA", f"onnxruntime {runtime.__version__} is not the build for GPUs", LEFT_OUT)
        return
    expected = _embedder(network, "cpu")(crops)
    cosine = _cosine(_embedder(load_network(path), work.device)(crops), expected)
    work.report.check(f"on {work.device}", cosine >= _COSINE["fp32"], f"cosine to PyTorch's at least {cosine:.6f}")


def networks(work: Work) -> None:
    """A Siamese network and one at full size only, trained on as many images for as long, and all benchmarks of both."""
    seconds, data = work.settings.networks_s, work.setup.data_sets()
    identities = len(work.index.labels)
    rate, _, _ = measure_training(work, reference_config(work), min(_PROBE_S, seconds), "probe")
    siamese, single = min(_SIAMESE_IDENTITIES, identities), min(_SINGLE_IDENTITIES, identities)
    steps = max(int(rate * seconds / (4 * siamese)), 1)
    plans = {
        "single": [
            "--views",
            "128",
            "--batch-size",
            str(single),
            "--steps",
            str(max(steps * 4 * siamese // single, 1)),
        ],
        "siamese": ["--views", _VIEWS, "--batch-size", str(siamese), "--steps", str(steps)],
    }
    scored = Path(work.settings.results).with_name("networks.json")
    words = ["bench", "all", "--json", str(scored), "--device", work.device]
    for name, options in plans.items():
        start = time.perf_counter()
        _cli(
            work,
            data,
            ["train", "--shards", str(work.index.root), "--out", str(work.scratch / name), *_options(work), *options],
        )
        work.report.write(f"{name} trained", f"{' '.join(options)}: {time.perf_counter() - start:.0f} s")
        newest = checkpoints(work.scratch / name)[-1]
        words += ["--name", name, "--network", str(newest)]
    _cli(work, data, words, check=False)  # it fails if a data set is not there, but scores the others
    content = json.loads(scored.read_text())
    for result in content.get("results", [content]):
        name, main = Path(result["checkpoint"]["path"]).parent.parent.name, result["main"]
        work.report.write(f"{name}, {result['benchmark']} {main}", f"{result['metrics'][main]:.4f}")


def _options(work: Work) -> list[str]:
    """As docs/results.md trains its networks, with another network."""
    backbone = "spherenet4" if work.quick else "spherenet20"
    words = f"--recipe quick --backbone {backbone} --precision bf16 --degrade exact --optimizer adamw --lr 0.001"
    return [*words.split(), "--schedule", "step:at=0.8/0.9", "--device", work.device, "--loader-threads", str(cores())]


def _cli(work: Work, data: Path, words: list[str], *, check: bool = True) -> None:
    environment = {**os.environ, "LRFR_DATA": str(data)}
    command = [sys.executable, "cli.py", *words]
    subprocess.run(command, cwd=REPOSITORY, env=environment, stdout=sys.stderr, stdin=subprocess.DEVNULL, check=check)
