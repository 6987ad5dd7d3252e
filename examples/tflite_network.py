"""A TensorFlow Lite network for ``--network``: any function from images to embeddings is a network.

    export TFLITE=MobileFaceNet.tflite
    PYTHONPATH=examples python cli.py bench lfw --network tflite_network:embed

The function takes (N, S, S, 3) uint8 RGB images, faces aligned and resized as its attribute ``preprocessing`` says, and
returns (N, D) embeddings. It does what else its network needs: here the range (x - 127.5) / 128 and a fixed batch.
Needs ``ai-edge-litert``, which the extra [landmarks] brings.
"""

from __future__ import annotations

import functools
import os

import numpy as np
from ai_edge_litert.interpreter import Interpreter


@functools.cache
def network() -> tuple[Interpreter, dict, dict]:
    """The interpreter, and its only input and output."""
    interpreter = Interpreter(os.environ["TFLITE"], num_threads=os.cpu_count())
    interpreter.allocate_tensors()
    return interpreter, interpreter.get_input_details()[0], interpreter.get_output_details()[0]


def embed(images: np.ndarray) -> np.ndarray:
    """(N, 112, 112, 3) uint8 RGB -> (N, D) float32."""
    interpreter, source, target = network()
    batch = source["shape"][0]
    padding = -len(images) % batch
    inputs = np.concatenate([images, np.repeat(images[-1:], padding, axis=0)]).astype(np.float32)
    embeddings = []
    for start in range(0, len(inputs), batch):
        interpreter.set_tensor(source["index"], (inputs[start : start + batch] - 127.5) / 128)
        interpreter.invoke()
        embeddings.append(interpreter.get_tensor(target["index"]))
    return np.concatenate(embeddings)[: len(images)]


embed.preprocessing = "arcface"
