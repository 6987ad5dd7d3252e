"""Runs the two networks with LiteRT, in one thread."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from pipeline.landmarks.model import LandmarkerError, read_model
from shards.messages import install_command
from shards.process_setting import ProcessSetting

DETECTOR_PX, LANDMARKER_PX = 128, 256
FACE_POINTS = 478
LITERT = "ai_edge_litert"


class Networks(Protocol):
    """The face detector and the landmark network. Images are uint8: (S, S, 3) BGR, or grey (S, S)."""

    def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Runs the detector on an image of ``DETECTOR_PX``.

        Returns:
            (896, 16) float32 raw boxes and key points, one row an anchor, see ``detector.decode``.
            (896,) float32 logits of a face.
        """

    def landmarks(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        """Runs the landmark network on an image of ``LANDMARKER_PX`` with a face.

        Returns:
            (478, 3) float32 points: x and y in px of the image, see ``views``, and depth in the same unit, smaller
            towards the camera.
            The logit of there being a face.
        """


class LiteRTNetworks:
    """The networks of the model file."""

    def __init__(self, model: Path) -> None:
        """Raises: LandmarkerError: the model file is absent or another one, or LiteRT is not installed."""
        graphs = read_model(model)
        interpreter = import_litert().Interpreter
        with no_stderr:  # LiteRT announces its CPU kernels
            self._detector = interpreter(model_content=graphs.detector, num_threads=1)
            self._landmarker = interpreter(model_content=graphs.landmarker, num_threads=1)
            for network in (self._detector, self._landmarker):
                network.allocate_tensors()
        self._inputs = {
            network: network.get_input_details()[0]["index"] for network in (self._detector, self._landmarker)
        }
        self._boxes, self._scores = (one["index"] for one in self._detector.get_output_details())
        self._points, self._presence, _ = (one["index"] for one in self._landmarker.get_output_details())

    def detect(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See ``Networks``."""
        self._run(self._detector, image, scale=1 / 127.5, offset=-1)
        return self._detector.get_tensor(self._boxes)[0], self._detector.get_tensor(self._scores)[0, :, 0]

    def landmarks(self, image: np.ndarray) -> tuple[np.ndarray, float]:
        """See ``Networks``."""
        self._run(self._landmarker, image, scale=1 / 255, offset=0)
        points = self._landmarker.get_tensor(self._points).reshape(FACE_POINTS, 3)
        return points, self._landmarker.get_tensor(self._presence).item()

    def invoke(self) -> None:
        """Runs both networks on what they hold, for measurements."""
        self._detector.invoke()
        self._landmarker.invoke()

    def _run(self, network: Any, image: np.ndarray, scale: float, offset: float) -> None:
        """Writes RGB pixels, scaled and shifted, straight into the input of a network, and runs it."""
        pixels = network.tensor(self._inputs[network])()[0]
        if image.ndim == 2:
            cv2.cvtColor(_scaled(image, scale, offset), cv2.COLOR_GRAY2RGB, dst=pixels)
        else:
            _scaled(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), scale, offset, out=pixels)
        del pixels  # LiteRT refuses to run while a view of its memory exists
        network.invoke()


def _scaled(image: np.ndarray, scale: float, offset: float, out: np.ndarray | None = None) -> np.ndarray:
    values: np.ndarray = np.multiply(image, np.float32(scale), out=out, dtype=np.float32)
    if offset:
        values += np.float32(offset)
    return values


def import_litert() -> Any:
    """Imports LiteRT's interpreter module. Raises: LandmarkerError: it is not installed."""
    try:
        return importlib.import_module(f"{LITERT}.interpreter")
    except ModuleNotFoundError as error:
        name = (error.name or LITERT).split(".")[0]
        remedy = install_command("landmarks")
        raise LandmarkerError(f"{name} is not installed; run: {remedy}") from None


def _drop_stderr() -> None:
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)


def _restore_stderr(before: int) -> None:
    os.dup2(before, 2)
    os.close(before)


no_stderr = ProcessSetting(lambda: os.dup(2), _drop_stderr, _restore_stderr)
"""Drops what native code prints on stderr, which no setting of LiteRT does."""
