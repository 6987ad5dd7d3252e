"""Where a student and its teacher look: attention maps of their stages, compared image by image."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from model.backbones.stages import stages
from model.inputs import normalise, on_device
from model.losses.distillation import attention, attention_map
from model.options import OptionError
from model.training.teacher import Teacher
from pipeline.spec import Preprocessing

_FRAME = ("template", "size", "points", "margin", "stretch")  # fields of a spec that say where a face is in the image


class AttentionTransfer:
    """Compares the feature maps at the end of each stage. No module: the teacher's weights are not the learner's.

    Args:
        backbone: of the student.
        spec: of the student's images, which the teacher sees, too.
        device: of both.

    Raises:
        OptionError: the teacher has no layers that are known here, other stages, or another frame of the face.
    """

    def __init__(self, backbone: nn.Module, spec: Preprocessing, teacher: Teacher | None, device: str) -> None:
        network = None if teacher is None else teacher.network
        if network is None or not network.trainable:
            raise OptionError(
                "losses distill:form=attention compares stages of backbones, but those of the teacher"
                f" {teacher.name if teacher else 'None'} are not known here; name a network with weights"
            )
        if names := [name for name in _FRAME if getattr(network.spec, name) != getattr(spec, name)]:
            found = ", ".join(f"{name} {getattr(network.spec, name)}, not {getattr(spec, name)}" for name in names)
            raise OptionError(f"losses distill:form=attention compares places in an image, but the teacher has {found}")
        self._spec, self._teacher = network.spec, network.backbone
        self._ours, ours = _ends(backbone, spec.size)
        self._theirs, theirs = _ends(self._teacher, spec.size)
        if ours != theirs:
            raise OptionError(
                "losses distill:form=attention compares maps of the same sizes, but those of the student are"
                f" {', '.join(ours)}, those of the teacher {', '.join(theirs)}; choose another --backbone"
            )
        self._teacher = on_device(self._teacher.eval().requires_grad_(False), device)

    def student_maps(self) -> contextlib.AbstractContextManager[list[torch.Tensor]]:
        """Collects the maps of the images that go through the student in this block."""
        return _maps(self._ours)

    def distances(self, ours: list[torch.Tensor], originals: torch.Tensor) -> torch.Tensor:
        """(V*b,) of the student's maps and those of the teacher, which sees (V, b, S, S, 3) uint8 ``originals``."""
        spec = self._spec
        with torch.no_grad(), _maps(self._theirs) as theirs:
            self._teacher(normalise(originals.flatten(0, 1), spec.mean, spec.std, color=spec.color))
        return attention(ours, theirs)


def _ends(backbone: nn.Module, size: int) -> tuple[list[nn.Module], list[str]]:
    """The last layer of each stage, and the sizes of their outputs: ``64x64`` or ``65 tokens``."""
    layers = [stage[-1] for stage in stages(backbone, size)]
    sizes = []

    def note(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        sizes.append("x".join(map(str, output.shape[2:])) if output.ndim == 4 else f"{output.shape[1]} tokens")

    training = backbone.training
    with torch.no_grad(), contextlib.ExitStack() as stack:
        for layer in layers:
            stack.callback(layer.register_forward_hook(note).remove)
        backbone.eval()(next(backbone.parameters()).new_zeros(1, 3, size, size))
    backbone.train(training)
    return layers, sizes


@contextlib.contextmanager
def _maps(layers: list[nn.Module]) -> Iterator[list[torch.Tensor]]:
    """Collects the attention maps of the outputs of ``layers``, in the order of their calls."""
    found: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        found.append(attention_map(output))

    with contextlib.ExitStack() as stack:
        for layer in layers:  # hooks for this call only: copies of the network must not share them
            stack.callback(layer.register_forward_hook(keep).remove)
        yield found
