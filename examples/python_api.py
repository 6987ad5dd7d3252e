"""The Python API in one script: generate faces, build a shard set, load batches, train ten steps, score.

    python examples/python_api.py [FOLDER]      # without one, in a temporary folder

It takes a few seconds on a CPU and needs no data. The network is far too small and untrained to be good.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks import read_benchmark
from benchmarks.engine.runner import Engine, run
from model.embedder import Embedder
from model.formats.checkpoint import checkpoints
from model.formats.network import load_network
from model.training.config import TrainConfig
from model.training.loop import train
from model.training.state import new_run
from pipeline.build import build, options_for
from pipeline.demo.generate import write_demo_data
from pipeline.load.loader import Loader
from pipeline.spec import Preprocessing
from shards.index import ShardIndex, ShardReader


def main(folder: Path) -> None:
    # 1. Faces: 8 people to train on, others to score, in the layouts of the public data sets.
    write_demo_data(folder, identities=8, images=4, seed=0, layouts=["VGGFace2", "QMUL-SurvFace"])

    # 2. A shard set. None or () stands for the default: here the template and the landmark files of VGGFace2.
    options = options_for(
        "vggface2", root=folder / "VGGFace2", landmarks=(), template=None, out=folder / "shards", executor="serial"
    )
    manifest = build(options)
    print(f"{manifest.images} images of {manifest.identities} people, preprocessing {manifest.preprocessing}")

    # 3. Single images: the index knows where each image is, the reader checks its hash.
    index = ShardIndex(folder / "shards")
    with ShardReader(index) as reader:
        print(f"{index.key(0)}: label {index.label[0]}, {len(reader.image(0))} bytes of JPEG")

    # 4. Training: each identity of a batch is shown at 128, 8, 12 and 16 px.
    config = TrainConfig(backbone="spherenet4", init="data", batch_size=4, steps=10, lr=0.01)
    preprocessing = Preprocessing.from_dict(manifest.preprocessing)
    state = new_run(config, classes=manifest.identities, preprocessing=preprocessing)
    views = [(view.low, view.high) for view in config.all_views]
    with Loader(index, batch_size=config.batch_size, views=views, seed=config.seed) as batches:
        batch = next(batches)
        print(f"images {tuple(batch.images.shape)} {batch.images.dtype}, labels {batch.labels.tolist()}")
        train(batches, state, folder / "run")

    # 5. Scoring. `embed` may be any function from (N, 128, 128, 3) uint8 RGB images to (N, D) vectors.
    network = load_network(checkpoints(folder / "run")[-1])
    spec = network.spec
    embed = Embedder(network.backbone, mean=spec.mean, std=spec.std, color=spec.color)
    protocol = read_benchmark("qmul", folder)
    result = run(protocol, Engine(embed=embed, spec=network.spec), checkpoint=network.provenance())
    low, high = result.intervals["auc"]
    print(f"{result.title}: AUC {result.metrics['auc']:.3f}, 95 % interval {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", help="where everything is written. Default: a temporary folder")
    if folder := parser.parse_args().folder:
        main(Path(folder))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
