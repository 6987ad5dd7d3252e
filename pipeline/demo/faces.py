"""Random parameters of generated faces: the person (``Identity``) and the photo (``Conditions``)."""

from __future__ import annotations

import dataclasses

import numpy as np

SKIN_COLORS = np.array(
    [(255, 222, 196), (242, 202, 170), (224, 178, 140), (198, 148, 108), (158, 108, 74), (112, 72, 48), (84, 54, 38)],
    float,
)
HAIR_COLORS = np.array(
    [(28, 22, 20), (58, 38, 26), (98, 64, 38), (150, 104, 58), (206, 168, 104), (142, 62, 34), (150, 148, 146)], float
)
IRIS_COLORS = np.array([(74, 46, 26), (98, 66, 36), (70, 96, 62), (78, 112, 142), (58, 70, 84)], float)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """A person: what all their photos share. Lengths are in face units, colours are RGB 0..255."""

    width: float
    jaw: float  # exponent of the lower contour: 2 round, 3 square
    chin: float
    skin: np.ndarray
    hair: np.ndarray
    hair_style: int  # 0 bald, 1 short, 2 side parting, 3 fringe, 4 long
    hairline: float
    iris: np.ndarray
    eye_gap: float
    eye_y: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    brow_height: float
    brow_thickness: float
    brow_arch: float
    nose_length: float
    nose_width: float
    mouth_y: float
    mouth_width: float
    lip: float
    lip_color: np.ndarray
    beard: float  # 0 none .. 1 full
    moustache: float
    glasses: int  # 0 none, 1 round, 2 angular
    moles: np.ndarray  # (k, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conditions:
    """Capture conditions of one photo: pose (radians), light, expression, lens, background."""

    yaw: float
    pitch: float
    roll: float
    light: np.ndarray  # (3,) unit vector towards the light
    ambient: float
    exposure: float
    tint: np.ndarray  # (3,)
    smile: float  # -1..1
    mouth_open: float  # 0..1
    eye_open: float  # 0..1
    gaze: np.ndarray  # (2,)
    blur: float  # px
    noise: float  # standard deviation, levels
    clothes: np.ndarray
    background: np.ndarray  # (6, 6, 3)
    offset: np.ndarray  # (2,) of the face from the centre, fraction of the width


def sample_identity(rng: np.random.Generator) -> Identity:
    """Draws a random person."""
    tone = int(rng.integers(len(SKIN_COLORS)))
    skin = _blend(rng, SKIN_COLORS[max(tone - 1, 0) : tone + 1])
    male = rng.random() < 0.5
    return Identity(
        width=rng.uniform(0.64, 0.82),
        jaw=rng.uniform(1.9, 3.0),
        chin=rng.uniform(0.88, 1.08),
        skin=skin,
        hair=_blend(rng, HAIR_COLORS if tone < 4 else HAIR_COLORS[[0, 1, 6]], spread=0.4),
        hair_style=int(rng.choice([0, 1, 1, 2, 3] if male else [2, 3, 4, 4, 4])),
        hairline=rng.uniform(-0.74, -0.52),
        iris=_blend(rng, IRIS_COLORS, spread=0.3),
        eye_gap=rng.uniform(0.27, 0.36),
        eye_y=rng.uniform(-0.24, -0.12),
        eye_width=rng.uniform(0.125, 0.175),
        eye_height=rng.uniform(0.05, 0.085),
        eye_tilt=rng.uniform(-0.03, 0.03),
        brow_height=rng.uniform(0.13, 0.21),
        brow_thickness=rng.uniform(0.025, 0.065),
        brow_arch=rng.uniform(0.0, 0.07),
        nose_length=rng.uniform(0.36, 0.5),
        nose_width=rng.uniform(0.11, 0.18),
        mouth_y=rng.uniform(0.46, 0.56),
        mouth_width=rng.uniform(0.21, 0.31),
        lip=rng.uniform(0.04, 0.085),
        lip_color=0.55 * skin + 0.45 * np.array([rng.uniform(140, 205), rng.uniform(50, 95), rng.uniform(60, 100)]),
        beard=float(male and rng.random() < 0.4) * rng.uniform(0.4, 0.95),
        moustache=float(male and rng.random() < 0.35) * rng.uniform(0.5, 1.0),
        glasses=int(rng.choice([0, 0, 0, 1, 2])),
        moles=rng.uniform((-0.5, -0.3), (0.5, 0.7), (int(rng.integers(0, 3)), 2)),
    )


def sample_conditions(rng: np.random.Generator) -> Conditions:
    """Draws random capture conditions."""
    light = np.array([rng.normal(0, 0.6), rng.normal(-0.4, 0.35), 1.0])
    return Conditions(
        yaw=float(np.clip(rng.normal(0, 0.25), -0.6, 0.6)),
        pitch=float(np.clip(rng.normal(0, 0.13), -0.35, 0.35)),
        roll=rng.normal(0, 0.09),
        light=light / np.linalg.norm(light),
        ambient=rng.uniform(0.45, 0.75),
        exposure=rng.uniform(0.78, 1.15),
        tint=1 + rng.normal(0, 0.035, 3),
        smile=rng.uniform(-0.35, 1.0),
        mouth_open=max(rng.uniform(-0.8, 0.8), 0.0),
        eye_open=rng.uniform(0.6, 1.05),
        gaze=rng.normal(0, 0.16, 2),
        blur=max(rng.normal(0.3, 0.5), 0.0),
        noise=rng.uniform(0.5, 5.0),
        clothes=rng.uniform(25, 225, 3),
        background=np.clip(
            rng.uniform(40, 215) + rng.normal(0, 16, 3) + rng.normal(0, 24, (6, 6, 1)) + rng.normal(0, 6, (6, 6, 3)),
            0,
            255,
        ),
        offset=rng.normal(0, 0.02, 2),
    )


def _blend(rng: np.random.Generator, palette: np.ndarray, spread: float = 0.5) -> np.ndarray:
    """A random colour of ``palette``, blended towards another one."""
    first, second = palette[rng.integers(len(palette))], palette[rng.integers(len(palette))]
    return first + spread * rng.random() ** 2 * (second - first)
