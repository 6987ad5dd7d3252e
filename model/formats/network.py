"""Loading a trained backbone from any supported format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import nn

from model.backbones import build_backbone
from model.errors import MORE_MEMORY, CheckpointError, explained_memory, one_line
from model.finite import all_finite
from model.formats.checkpoint import Content, checkpoints, is_ours, read_checkpoint
from model.formats.foreign.cvlface import cvlface_weights, stated_color
from model.formats.foreign.recognise import recognise
from model.formats.graphs.exported import is_exported, read_exported
from model.formats.graphs.found import FoundGraph, check_independent
from model.formats.graphs.function import is_function, read_function
from model.formats.graphs.library import PICKLED, is_library, read_library
from model.formats.graphs.onnx_graph import is_onnx, read_onnx
from model.formats.graphs.others import is_other, refuse_other
from model.formats.graphs.script import is_script, read_script
from model.formats.huggingface import WEIGHTS, has_safetensors_header, read_folder, read_safetensors
from model.options import Choice, OptionError, parse_choice
from pipeline.named_specs import spec_name
from pipeline.spec import Preprocessing, SpecError
from shards.arguments import check_argument, check_path
from shards.errors import LrfrError
from shards.files import StrPath
from shards.messages import counted
from shards.process_setting import ignored_warnings

# What graphs are recognised by, and their readers; all else is weights.
GRAPHS = (
    (is_function, read_function),
    (is_other, refuse_other),
    (is_onnx, read_onnx),
    (is_script, read_script),
    (is_exported, read_exported),
    (is_library, read_library),
)


class LoadedNetwork(NamedTuple):
    """A trained backbone and its provenance.

    Attributes:
        backbone: in evaluation mode, on the CPU.
        spec: how its images are prepared. A bare state dict states none: that of its project is assumed.
        name: the backbone as text, such as ``ir50`` or ``spherenet20:pooling=true``.
        path: the checkpoint file or folder.
        step: number of updates; None if not stated.
        digest: hash of name, spec and weights; equal for all files that hold the same network.
        training: configuration of the run; empty if not stated.
        spec_stated: False if ``spec`` is assumed.
        note: what was left out of the file, for the user; empty if nothing was.
        trainable: False for a graph that can only be run, such as ONNX.
        cached: False if its embeddings may change while its digest does not; they are then not cached.
        training_data: identities, digest of the shard set, and the teacher; empty if not stated.
    """

    backbone: nn.Module
    spec: Preprocessing
    name: str
    path: Path
    step: int | None
    digest: str
    training: Mapping[str, object] = MappingProxyType({})
    spec_stated: bool = True
    note: str = ""
    trainable: bool = True
    cached: bool = True
    training_data: Mapping[str, object] = MappingProxyType({})

    def __repr__(self) -> str:
        step = "" if self.step is None else f", step {self.step}"
        return f"LoadedNetwork({str(self.path)!r}: {self.name}{step}, {self.spec.size} px, digest {self.digest})"

    def check_trainable(self, purpose: str) -> None:
        """Raises: CheckpointError: the network can only be run; ``purpose`` is what it cannot be, such as exported."""
        if not self.trainable:
            raise CheckpointError(
                f"{self.path}: is a graph ({self.name}) that can be run, but not {purpose}; name a checkpoint with weights"
            )

    def embedding_size(self) -> int:
        """Length of the embeddings, from one forward pass."""
        with torch.inference_mode():
            pixels = torch.zeros(1, 3, self.spec.size, self.spec.size)
            return int(self.backbone(pixels).shape[1])

    def provenance(self) -> dict[str, str | int | None]:
        """Path, step, backbone and digest as JSON-able fields."""
        return {"path": str(self.path), "step": self.step, "backbone": self.name, "digest": self.digest}

    def metadata(self) -> dict[str, str]:
        """Metadata for exported files: backbone, step (empty if not stated), digest, and preprocessing as JSON."""
        return {
            "backbone": self.name,
            "step": "" if self.step is None else str(self.step),
            "digest": self.digest,
            "preprocessing": json.dumps(self.spec.to_dict(), sort_keys=True),
        }


def load_network(path: StrPath, preprocessing: Preprocessing | None = None) -> LoadedNetwork:
    """Loads a network: see ``docs/guide/networks.md`` for the formats.

    Weights are the exponential average if the checkpoint has one. Projects are recognised by the names and shapes of
    their tensors, see ``model.formats.foreign``.

    Args:
        path: a file, a folder, or ``module:function``.
        preprocessing: how its images are prepared. None: as it states, or the default of its format.

    Raises:
        CheckpointError: the file cannot be read, or its weights fit no known backbone or are not finite.
        ExportError: a package that the format needs is not installed.
        TypeError: an argument has a wrong type.
    """
    path = check_path("path", path)
    good = isinstance(preprocessing, Preprocessing | None)
    check_argument(good, "preprocessing", preprocessing, "a Preprocessing, or None")
    for is_graph, read in GRAPHS:
        if is_graph(path):
            try:
                network = _loaded(path, read(path, preprocessing))
            except LrfrError:
                if (known := _known_in(path)) is None:
                    raise
                network = known
            return _prepared(network, preprocessing)
    return _prepared(_load_weights(path), preprocessing)


def _known_in(folder: Path) -> LoadedNetwork | None:
    """The network of another project in a folder that its library cannot build; None if there is none."""
    weights = next((folder / name for name in (WEIGHTS, PICKLED) if (folder / name).is_file()), None)
    if weights is None:
        return None
    try:
        return _load_foreign(folder, read_tensors(weights), color=None)
    except LrfrError:
        return None


def _loaded(path: Path, graph: FoundGraph) -> LoadedNetwork:
    """A graph as a network. Raises: CheckpointError: the embedding of an image depends on others."""
    check_independent(path, graph.module, graph.spec.size)
    digest = backbone_digest(graph.name, graph.module, graph.spec)
    return LoadedNetwork(
        backbone=graph.module.eval(),
        spec=graph.spec,
        name=graph.name,
        path=path,
        step=graph.step,
        digest=digest,
        spec_stated=graph.stated,
        trainable=False,
        cached=graph.cached,
    )


def _prepared(network: LoadedNetwork, given: Preprocessing | None) -> LoadedNetwork:
    """The network with the preprocessing that the user gives; a warning in its note if it states another one.

    Raises:
        CheckpointError: it takes images of another size.
    """
    if given is None:
        return network
    size = network.spec.size
    if given.size != size and spec_name(given) is None:
        raise CheckpointError(
            f"{network.path}: takes images of {size} px, but --preprocessing has size = {given.size}; expected size = {size}"
        )
    spec, note = given.resized(size), network.note
    if network.spec_stated and (differing := spec.differences(network.spec)):
        warning = f"warning: --preprocessing is not what {network.path} states: {'; '.join(differing)}"
        note = f"{note}\n{warning}" if note else warning
    digest = backbone_digest(network.name, network.backbone, spec)
    return network._replace(spec=spec, digest=digest, spec_stated=True, note=note)


def _load_weights(path: Path) -> LoadedNetwork:
    """Loads a file or folder of weights for a backbone that is known here."""
    if path.is_dir():
        if saved := checkpoints(path):
            raise CheckpointError(f"{path}: is a run folder; name one of its checkpoints, such as {saved[-1]}")
        if weights := cvlface_weights(path):
            return _load_foreign(path, read_tensors(weights[0]), color=stated_color(path))
        content, record, state = read_folder(path)
        choice, training = Choice(content["backbone"], content["backbone_options"]), content["training"]
    else:
        content = read_tensors(path)
        if not is_ours(content):
            return _load_foreign(path, content, color=stated_color(path.parent))
        try:
            choice, training = parse_choice(content["backbone"]), content["config"]
        except OptionError as error:
            raise CheckpointError(f"{path}: backbone: {one_line(error, 80)}") from None
        record, state = content["preprocessing"], content.get("averaged_state") or content["backbone_state"]
    try:
        spec = Preprocessing.from_dict(record)
    except SpecError as error:
        raise CheckpointError(f"{path}: {one_line(error, 200)}") from None
    backbone = _build(path, choice, spec, state)
    digest = backbone_digest(str(choice), backbone, spec)
    if path.is_dir() and digest != content["digest"]:
        raise CheckpointError(
            f"{path}: damaged or edited (the digest in its config.json does not match); export it again"
        )
    data = _training_data(content)
    return LoadedNetwork(
        backbone, spec, str(choice), path, content["step"], digest, training=training, training_data=data
    )


def _training_data(content: Mapping[str, object]) -> dict[str, object]:
    """Identities of the head, digest of the shard set, and the teacher, of a checkpoint that has them."""
    head, loader, teacher = (content.get(name) for name in ("head_state", "loader_state", "teacher"))
    taught = [teacher.get(name) for name in ("name", "digest")] if isinstance(teacher, Mapping) else [None]
    weight = head.get("weight") if isinstance(head, Mapping) else None
    digest = loader.get("index_digest") if isinstance(loader, Mapping) else None
    facts = {
        "identities": len(weight) if isinstance(weight, torch.Tensor) and weight.dim() else None,
        "shard_set": digest if isinstance(digest, str) else None,
        "teacher": ", digest ".join(map(str, taught)) if all(isinstance(fact, str) for fact in taught) else None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def read_tensors(path: Path) -> Content:
    """Content of a file of any program, without running code in it. Raises: see ``load_network``."""
    if path.is_file() and (path.suffix == ".safetensors" or has_safetensors_header(path)):
        return read_safetensors(path)
    return read_checkpoint(path, skip_objects=True)


def _load_foreign(path: Path, content: object, *, color: str | None) -> LoadedNetwork:
    """A network of another project; ``color`` is what CVLface's configuration beside it states."""
    network = recognise(path, content, color=color)
    choice, spec = network.match.choice, network.match.spec
    backbone = _build(path, choice, spec, network.state)
    digest = backbone_digest(str(choice), backbone, None if spec == Preprocessing() else spec)
    return LoadedNetwork(backbone, spec, str(choice), path, None, digest, spec_stated=network.stated, note=network.note)


def _build(path: Path, choice: Choice, spec: Preprocessing, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """The backbone with the weights of ``state``, in evaluation mode. Raises: CheckpointError: they are not its own."""

    def load() -> nn.Module:
        backbone = build_backbone(choice.name, image_size=spec.size, **choice.options)
        backbone.load_state_dict(state)
        return backbone.eval()

    try:
        # compares names and shapes before memory is allocated: a hostile file may ask for a huge network
        with torch.device("meta"), ignored_warnings():  # load_state_dict warns that meta tensors copy nothing
            load()
        with explained_memory(MORE_MEMORY):
            backbone = load()
    except OptionError as error:
        raise CheckpointError(f"{path}: {one_line(error, 400)}") from None
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: its weights do not fit {choice} ({one_line(error)})") from None
    if bad := [name for name, value in backbone.state_dict().items() if not all_finite([value])]:
        raise CheckpointError(
            f"{path}: {counted(len(bad), 'tensor')} not finite, such as {bad[0]}; use an earlier checkpoint"
        )
    return backbone


def backbone_digest(name: str, backbone: nn.Module, spec: Preprocessing | None) -> str:
    """BLAKE2b hash of a backbone's name, preprocessing spec and tensors (names, dtypes, shapes, values).

    Args:
        name: the backbone as text, such as ``spherenet20:pooling=true``.
        spec: None for a bare state dict, which states no spec.

    Returns:
        32 hex digits.
    """
    fields = None if spec is None else sorted(map(repr, spec.to_dict().items()))
    digest = hashlib.blake2b(repr((name, fields)).encode(), digest_size=16)
    for key, tensor in backbone.state_dict().items():
        digest.update(repr((key, tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
