"""Whether a network gets the preprocessing that it expects."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import BENCHMARKS, read_benchmark
from benchmarks.engine.guess import MIN_PAIRS, Guess, guess_preprocessing
from benchmarks.scoring.protocols import PairProtocol
from commands.diagnosis.findings import Finding, note, ok, warn
from model.embedder import Embedder
from model.formats.network import LoadedNetwork, load_network
from pipeline.demo.generate import write_demo_data
from pipeline.named_specs import spec_name
from pipeline.spec import Preprocessing
from shards.errors import LrfrError
from shards.messages import command, counted


def network_findings(network: LoadedNetwork, root: Path, device: str) -> Iterator[Finding]:
    """Tries other preprocessings on pairs of a benchmark in ``root``, or on generated faces if it has none."""
    how = "stated or given" if network.spec_stated else "assumed"
    yield ok(f"{network.name}, embeddings of {network.embedding_size():,} numbers; {how}: {network.spec}")
    protocol = _protocol(root)
    with tempfile.TemporaryDirectory() as folder:
        if protocol is None:
            write_demo_data(Path(folder), identities=24, images=3, seed=0)
            protocol = _protocol(Path(folder))
            yield note(
                f"no pairs of faces in {root}: generated faces, which networks of real ones tell apart badly",
                f"{command('fetch', 'lfw')}, or name the folder that LFW is in: {command('doctor', 'DATA', '--network', network.path)}",
            )
        if protocol is not None:
            yield from guess_findings(network, guess(network, protocol, device), protocol.title)


def guess(network: LoadedNetwork, protocol: PairProtocol, device: str) -> Guess:
    """Tries other preprocessings of a network on pairs of a protocol. Raises: ProtocolError: it has too few."""

    def embed_with(spec: Preprocessing) -> Embedder:
        loaded = network if spec == network.spec else load_network(network.path, spec)
        return Embedder(loaded.backbone, device=device, mean=spec.mean, std=spec.std, color=spec.color)

    return guess_preprocessing(protocol, network.spec, embed_with)


def guess_findings(network: LoadedNetwork, found: Guess, data: str) -> Iterator[Finding]:
    """What the trials say."""
    where = f"{counted(found.pairs, 'pair')} of {data}"
    if found.blind:
        yield warn(
            f"{network.path} tells faces apart with no preprocessing: separation {found.best.separation:.1f} on {where}",
            "is it a network for faces? Are these faces? Its authors' code says how it is fed",
        )
    elif found.best is found.given:
        yield ok(f"no other preprocessing is surely better: separation {found.given.separation:.1f} on {where}")
    else:
        yield warn(
            f"{network.path} probably expects {', '.join(found.best.spec.differences(network.spec))}: separation"
            f" {found.best.separation:.1f} instead of {found.given.separation:.1f} on {where}",
            f"--preprocessing {as_option(found.best.spec)}",
        )
    for trial in found.trials:
        yield note(f"{trial.what}: separation {trial.separation:.1f}")
    for own in found.own:
        yield note(f"{own}: makes no difference, the network normalises it itself")
    if found.grey:
        yield note("the images are grey: the colour order cannot be found", "name a folder with pairs in colour")


def as_option(spec: Preprocessing) -> str:
    """A preprocessing as a user gives it: its name, or what to write into a file."""
    if (name := spec_name(spec)) is not None:
        return name
    left_out = ("jpeg_quality", "degradation", *(() if spec.aligned else ("warp",)))
    lines = {name: value for name, value in spec.to_dict().items() if name not in left_out}
    if spec.points is not None:
        lines["name"] = lines.pop("template")
    text = "; ".join(f"{name} = {_toml(value)}" for name, value in lines.items())
    return f"FILE.toml, with the lines: {text}"


def _toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return f"{value:.6g}" if isinstance(value, float) else str(value) if isinstance(value, int) else f'"{value}"'


def _protocol(root: Path) -> PairProtocol | None:
    """The pairs of the first benchmark in ``root`` that has some and can be read."""
    for name in BENCHMARKS:
        try:
            protocol = read_benchmark(name, root)
        except (LrfrError, OSError):
            continue
        if isinstance(protocol, PairProtocol) and min(protocol.genuine.sum(), (~protocol.genuine).sum()) >= MIN_PAIRS:
            return protocol
    return None
