"""export: a network for other tools."""

from __future__ import annotations

from pathlib import Path

import click

from commands.network import open_network
from commands.options import checkpoint_option


@click.group()
def export() -> None:
    """Write a network for other tools."""


@export.command("onnx", short_help="One ONNX file, compared with PyTorch.")
@checkpoint_option
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The ONNX file to write.")
@click.option(
    "--preprocess",
    is_flag=True,
    help="Take uint8 images and give unit-length embeddings; without, normalised pixels and raw embeddings.",
)
def export_onnx(checkpoint: Path | None, out: Path, preprocess: bool) -> None:
    """Write one ONNX file with a dynamic batch, and compare ONNX Runtime with PyTorch on random images.

    With --preprocess the graph takes images, uint8 (N, S, S, 3) RGB aligned crops, and gives embeddings, float32
    (N, 512) of unit length. Without, it takes pixels, float32 (N, 3, S, S) normalised as the checkpoint states, and
    gives embeddings as the network does. Where the two libraries differ, nothing is written and the exit code is 1.
    """
    from model.formats.onnx import LEAST_COSINE, TOLERANCE, signature
    from model.formats.onnx import export_onnx as write

    network = open_network(checkpoint)
    for parity in write(network, out, preprocess=preprocess):
        click.echo(f"ONNX Runtime against PyTorch, {parity}")
    click.echo(f"tolerance: difference {TOLERANCE:g} of the largest value, cosine {LEAST_COSINE}")
    click.echo(f"{network.name}: {signature(network.spec, preprocess)}")
    click.echo(f"onnx: {out} ({out.stat().st_size:,} bytes)")


@export.command("huggingface", short_help="A folder in the layout of a Hugging Face repository.")
@checkpoint_option
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="The folder to write.")
def export_huggingface(checkpoint: Path | None, out: Path) -> None:
    """Write a folder in the layout of a Hugging Face model repository: safetensors, configuration, model card.

    --checkpoint of every command takes the folder. Nothing is uploaded. An earlier export in --out is replaced;
    a folder with anything else in it is refused.
    """
    from model.formats.huggingface import write_folder

    network = open_network(checkpoint)
    digest = write_folder(network, out)
    click.echo(f"{network.name}, digest {digest}, read back and equal")
    click.echo(f"huggingface: {out}")
