"""export: writes a network for other tools."""

from __future__ import annotations

from pathlib import Path

import click

from commands.group import interruptible
from commands.network import open_network
from commands.options import LocalPath, network_option
from commands.outputs import OutputPath


@click.group()
def export() -> None:
    """Write a network as ONNX or as a Hugging Face folder."""


@export.command("onnx", short_help="One ONNX file, compared with PyTorch.")
@network_option
@click.option(
    "--out", type=OutputPath(kind="an ONNX file", starts=(b"\x08",)), required=True, help="The ONNX file to write."
)
@click.option(
    "--preprocess",
    is_flag=True,
    help="Include preprocessing: uint8 images to unit-length embeddings. [default: normalised pixels to raw embeddings]",
)
def export_onnx(network: Path | None, out: Path, preprocess: bool) -> None:
    """Write one ONNX file with a dynamic batch, and compare ONNX Runtime with PyTorch on random images.

    With --preprocess, the input is uint8 (N, S, S, 3) RGB aligned crops, and the output is float32 (N, D) embeddings
    of unit length. Without it, the input is float32 (N, 3, S, S) pixels, normalised as the checkpoint states, and the
    output is the network's embeddings. If the two libraries differ, nothing is written and the exit code is 1.
    """
    from model.formats import export_onnx as onnx

    opened = open_network(network)
    with interruptible():
        for parity in onnx.export_onnx(opened, out, preprocess=preprocess):
            click.echo(f"ONNX Runtime against PyTorch, {parity}")
    click.echo(f"tolerance: difference {onnx.TOLERANCE:g} of the largest value, cosine {onnx.MIN_COSINE}")
    click.echo(f"{opened.name}: {onnx.signature(opened, preprocess)}")
    click.echo(f"onnx: {out} ({out.stat().st_size:,} bytes)")


@export.command("huggingface", short_help="A folder in the layout of a Hugging Face repository.")
@network_option
@click.option("--out", type=LocalPath(file_okay=False), required=True, help="The folder to write.")
def export_huggingface(network: Path | None, out: Path) -> None:
    """Write a folder in the layout of a Hugging Face model repository: safetensors, configuration, model card.

    --network of every command takes the folder. Nothing is uploaded. An earlier export in --out is replaced;
    a folder that holds anything else is refused.
    """
    from model.formats.export_huggingface import write_folder

    opened = open_network(network)
    with interruptible():
        digest = write_folder(opened, out)
    click.echo(f"{opened.name}, digest {digest}, read back and equal")
    click.echo(f"huggingface: {out}")
