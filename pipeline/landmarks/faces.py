"""Finds the five points of one face in an image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Literal

import numpy as np

from pipeline.landmarks import detector, views
from pipeline.landmarks.detector import CENTRE, LEFT_EYE, RIGHT_EYE, SIZE, Face
from pipeline.landmarks.networks import DETECTOR_PX, LANDMARKER_PX, Networks

Choice = Literal["largest", "central", "highest-score"]
# of the 478: centres of the irises, tip of the nose, corners of the mouth; left and right as the viewer sees them
FIVE_POINTS = (468, 473, 1, 61, 291)
_FAR_LEFT, _FAR_RIGHT, _FOREHEAD, _CHIN = 33, 263, 10, 152  # outer corners of the eyes; ends of the middle line
# A face that takes less of its view than MIN_SHARE, or that a tile may have cut, is detected again in a view of its own.
MIN_SHARE = 0.25
CLOSE_FACTOR = 2.0  # side of that view over the side of the face's box


@dataclasses.dataclass(frozen=True, kw_only=True)
class FacePoints:
    """The chosen face of an image; coordinates are continuous px, see ``views``.

    Attributes:
        points: (5, 2) float64: left eye, right eye, nose, left and right mouth corner, as the viewer sees them.
        score: of the detector, 0 to 1.
        faces: number of faces found.
        box: left, top, width, height.
        roll, yaw, pitch: degrees, see ``angles``.
    """

    points: np.ndarray
    score: float
    faces: int
    box: tuple[float, float, float, float]
    roll: float
    yaw: float
    pitch: float


def find_face(pixels: np.ndarray, networks: Networks, choose: Choice = "largest") -> FacePoints | None:
    """Returns the points of one face, or None if no face is found.

    The whole image is searched first. Only if it shows no face, ever smaller tiles of it are, until one does.

    Args:
        pixels: (H, W, 3) BGR or (H, W) uint8.
        choose: which of several faces.
    """
    image = views.Image(pixels)
    for search in views.searches(image.width, image.height, DETECTOR_PX):
        faces = _detect(image, networks, search)
        enough = math.inf if len(search) > 1 else MIN_SHARE * DETECTOR_PX / search[0][0, 0]
        for refused, face in enumerate(sorted(faces, key=_preference(choose, image))):
            closer = _closer(image, networks, face) if face.side < enough else face
            if found := _landmarks(image, networks, closer):
                return dataclasses.replace(found, faces=len(faces) - refused)
    return None


def angles(points: np.ndarray) -> tuple[float, float, float]:
    """Estimates how a head is turned, from (478, 3) points: x to the right, y down, depth away from the camera.

    Yaw and pitch are those of the plane through the outer eye corners that is parallel to the line from forehead to
    chin; the depth that the network states is an estimate itself.

    Returns:
        Degrees, 0 for a face that is upright and looks into the camera: roll, positive if the head is turned clockwise
        in the image; yaw, positive if it looks to the right of the image; pitch, positive if it looks up.
    """
    across = points[_FAR_RIGHT] - points[_FAR_LEFT]
    down = points[_CHIN] - points[_FOREHEAD]
    x, y, z = -np.cross(across, down)  # towards the viewer
    roll = math.atan2(across[1], across[0])
    yaw, pitch = math.atan2(x, -z), math.atan2(-y, math.hypot(x, z))
    return math.degrees(roll), math.degrees(yaw), math.degrees(pitch)


def _detect(image: views.Image, networks: Networks, matrices: list[np.ndarray]) -> list[Face]:
    """The faces in some views, in image px."""
    found = [face for matrix in matrices for face in _detect_in(image, networks, matrix)]
    inside = [face for face in found if _is_inside(face.geometry[CENTRE], image)]
    return detector.distinct(inside) if len(matrices) > 1 else inside


def _detect_in(image: views.Image, networks: Networks, matrix: np.ndarray) -> list[Face]:
    return [
        dataclasses.replace(face, geometry=_geometry_in_image(face.geometry, matrix))
        for face in detector.decode(*networks.detect(image.sample(matrix, DETECTOR_PX)))
    ]


def _geometry_in_image(geometry: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    found = views.to_image(geometry, matrix)
    found[SIZE] = geometry[SIZE] / matrix[0, 0]
    return found


def _is_inside(point: np.ndarray, image: views.Image) -> bool:
    """False for a face that the detector sees in the border alone."""
    return bool(0 <= point[0] <= image.width and 0 <= point[1] <= image.height)


def _closer(image: views.Image, networks: Networks, face: Face) -> Face:
    """Detects a face again in a view of its own."""
    side = CLOSE_FACTOR * face.side
    level_eyes = np.array([0.0, 0.0]), np.array([1.0, 0.0])
    matrix = views.face_view(face.geometry[CENTRE], side, *level_eyes, DETECTOR_PX)
    again = _detect_in(image, networks, matrix)
    return min(again, key=lambda one: math.dist(one.geometry[CENTRE], face.geometry[CENTRE]), default=face)


def _preference(choose: Choice, image: views.Image) -> Callable[[Face], float]:
    """Sort key of faces: the one to choose comes first."""
    middle = (image.width / 2, image.height / 2)
    keys: dict[Choice, Callable[[Face], float]] = {
        "largest": lambda face: -face.area,
        "central": lambda face: math.dist(face.geometry[CENTRE], middle),
        "highest-score": lambda face: -face.score,
    }
    return keys[choose]


def _landmarks(image: views.Image, networks: Networks, face: Face) -> FacePoints | None:
    """The points of a detected face; None if the landmark network sees no face there."""
    geometry = face.geometry
    side = views.FACE_FACTOR * face.side
    matrix = views.face_view(geometry[CENTRE], side, geometry[LEFT_EYE], geometry[RIGHT_EYE], LANDMARKER_PX)
    points, logit = networks.landmarks(image.sample(matrix, LANDMARKER_PX))
    if not (logit > 0 and np.isfinite(points).all()):
        return None
    turned = points.astype(np.float64)
    turned[:, :2] = turned[:, :2] @ matrix[:, :2] * (side / LANDMARKER_PX)  # axes of the image, px of the view
    roll, yaw, pitch = angles(turned)
    return FacePoints(
        points=views.to_image(points[list(FIVE_POINTS), :2].astype(np.float64), matrix),
        score=face.score,
        faces=1,
        box=face.box,
        roll=roll,
        yaw=yaw,
        pitch=pitch,
    )
