"""Whether a network can be scored on a benchmark, and what to do about images that cannot be used."""

from __future__ import annotations

from benchmarks.errors import ProtocolError
from benchmarks.scoring.protocols import Protocol
from pipeline.images.decode import ImageError
from pipeline.images.sizes import image_size
from pipeline.prepare import NoCropError
from pipeline.spec import Preprocessing
from pipeline.tables.landmark_scale import scale_warning, spread
from shards.messages import counted, print_stderr

MAX_LISTED = 20  # missing images on stderr


def check_fits(protocol: Protocol, spec: Preprocessing, network: str) -> None:
    """Raises: ProtocolError: the benchmark prepares images otherwise than the network was trained for.

    Landmarks that are probably of other images give a line.
    """
    if not spec.aligned and any(request.aligned for request in protocol.requests):
        raise ProtocolError(
            f"bench {protocol.name}: aligns faces by landmarks, but {network} was trained"
            f" on unaligned images only (template {spec.template}); "
            + (
                "resize the images whole: --aligned none"
                if protocol.source
                else "score it on qmul, qmul-id or tinyface"
            )
        )
    if spec.aligned and not protocol.alignment_stated:
        raise ProtocolError(
            f"bench {protocol.name}: {network} was trained on aligned faces (template"
            f" {spec.template}): say how the images are aligned: --landmarks TABLE or auto for photographs, --aligned"
            " arcface, seed or FILE.toml for aligned crops, --aligned none to resize them whole all the same"
        )
    largest = max(request.down or 0 for request in protocol.requests)
    if largest > spec.size:
        raise ProtocolError(
            f"bench {protocol.name}: degrades images to {largest} px, more than the network's input of {spec.size}"
            " px; choose smaller sizes"
        )
    aligned = [request for request in protocol.requests if request.points]
    tried = [aligned[number] for number in spread(len(aligned))]
    faces = [(str(one.path), one.points or (), one.points_size or image_size(one.path)) for one in tried]
    if warning := scale_warning(faces):
        print_stderr(f"bench {protocol.name}: {warning}")


def list_missing(missing: dict[str, ImageError], origin: str) -> str:
    """Lists unusable images on stderr; returns a message with remedies. ``origin``: where they may be restored from."""
    for name, error in list(missing.items())[:MAX_LISTED]:
        print_stderr(f"{name}: {error}")
    if len(missing) > MAX_LISTED:
        print_stderr(f"and {len(missing) - MAX_LISTED:,} more")
    restore = f"restore the images{origin}"
    remedies = {error.remedy if isinstance(error, NoCropError) else restore for error in missing.values()}
    return (
        f"{counted(len(missing), 'unusable image')}, listed above; {'; '.join(sorted(remedies, reverse=True))};"
        " or pass --allow-missing to score without them"
    )
