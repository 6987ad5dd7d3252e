"""Preprocessing with a name: how the networks of well-known projects see a face."""

from __future__ import annotations

from pipeline.spec import Preprocessing

# Five points of the mean face that dlib's chips are cut by, with its padding of a quarter; eyes: the mean of their six
# points, nose: its tip. Source: King, dlib, get_face_chip.
_DLIB = ((47.549, 46.599), (100.476, 46.599), (74.013, 76.563), (50.415, 103.023), (97.610, 103.023))
# Where facenet-pytorch's MTCNN sees its five points in its own face box, resized to a square: the mean of 80 photographs
# of LFW, made symmetric. Its boxes are 1.31 times as high as wide (standard deviation 0.06).
_FACE_BOX = ((43.6, 61.7), (116.4, 61.7), (80.0, 93.8), (48.0, 121.7), (112.0, 121.7))

NAMED_SPECS = {
    # Lai & Lam, APSIPA ASC 2021: the networks of the reference
    "seed": Preprocessing(),
    # crops of 112 px of the usual template, as this tool cuts them
    "arcface": Preprocessing(template="arcface", size=112),
    # the same template as insightface's norm_crop cuts it
    "insightface": Preprocessing(template="arcface", size=112, warp="opencv-linear", fit="forward"),
    # Kim et al., AdaFace, CVPR 2022
    "adaface": Preprocessing(template="arcface", size=112, warp="opencv-linear", fit="forward", color="BGR"),
    # Meng et al., MagFace, CVPR 2021: pixels in 0..1
    "magface": Preprocessing(
        template="arcface", size=112, warp="opencv-linear", fit="forward", color="BGR", mean=0.0, std=1.0
    ),
    # facenet-pytorch: MTCNN's box, upright, resized to a square
    "facenet": Preprocessing(
        template="facenet",
        size=160,
        points=_FACE_BOX,
        warp="opencv-linear",
        fit="upright",
        stretch=1.3,
        std=128 / 255,
    ),
    # dlib_face_recognition_resnet_model_v1: mean of each channel, 256
    "dlib": Preprocessing(
        template="dlib",
        size=150,
        points=_DLIB,
        warp="opencv-linear",
        fit="forward",
        mean=(122.782 / 255, 117.001 / 255, 104.298 / 255),
        std=256 / 255,
    ),
}


def spec_name(spec: Preprocessing) -> str | None:
    """Returns the name of a spec, if it has one."""
    return next((name for name, preset in NAMED_SPECS.items() if preset == spec), None)
