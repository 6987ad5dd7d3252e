"""Paints a face, with exact landmarks.

A head is an ellipsoid. Every feature is a curve on it in face units: x to the viewer's right, y down, z towards the
viewer; the head is about 1.5 wide and 2 high. Curves are rotated by the pose and projected. Shading follows the
ellipsoid.
"""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.demo.canvas import DEPTH, OVERSAMPLING, Canvas, Points, band, ellipse, polygon_mask, rounded_box, smooth
from pipeline.demo.faces import Conditions, Identity

METERED_LEVEL, METERING = 165.0, 0.7  # the camera's automatic exposure: level of skin, and how far it is reached


def paint(
    face: Identity, conditions: Conditions, *, width: int, height: int, rng: np.random.Generator
) -> tuple[np.ndarray, Points]:
    """Paints one photo of ``face``.

    Args:
        width, height: of the photo, px.
        rng: source of skin texture and sensor noise.

    Returns:
        The photo, (height, width, 3) uint8 RGB, and its landmarks, (5, 2) float64 px: left eye, right eye, nose tip,
        left and right mouth corner, as the viewer sees them.
    """
    canvas = Canvas(face, conditions, width, height)
    _body(canvas, face)
    _hair_behind(canvas, face)
    _head(canvas, face)
    for side in (-1, 1):
        _eye(canvas, face, side)
    _nose(canvas, face)
    corners = _mouth(canvas, face)
    _marks(canvas, face)
    _shade(canvas, face, rng)
    _hair_in_front(canvas, face)
    if conditions.glasses:
        _glasses(canvas, face)
    eyes = [canvas.surface(_eye_center(face, side)[None]) for side in (-1, 1)]
    landmarks = np.concatenate([*eyes, canvas.project(_nose_tip(face)[None]), corners])
    return _apply_camera(canvas.pixels, face, conditions, width, height, rng), landmarks / OVERSAMPLING


def _body(canvas: Canvas, face: Identity) -> None:
    """Paints shoulders and neck, which do not turn with the head."""
    (x, y), s = canvas.center, canvas.scale
    canvas.fill(ellipse(x, y + 2.3 * s, 1.75 * s, 1.1 * s), canvas.conditions.clothes)
    canvas.fill(np.array([(-0.42, 0.5), (0.42, 0.5), (0.5, 1.5), (-0.5, 1.5)]) * s + (x, y), face.skin * 0.72)


def _head(canvas: Canvas, face: Identity) -> None:
    for side in (-1, 1):
        ear = ellipse(side * face.width * 1.02, face.eye_y + 0.14, 0.09, 0.19)
        canvas.fill(canvas.outline(ear, -0.05), face.skin * 0.82)
    outline = _contour(face)
    canvas.fill(canvas.outline(outline), face.skin)
    for side in (-1, 1):
        cheek = ellipse(side * 0.4, 0.25, 0.17, 0.14)
        canvas.on_face(cheek, face.skin * (1.0, 0.78, 0.76), opacity=0.3, soft=0.06)
    if canvas.conditions.beard and face.beard:
        jaw = outline[outline[:, 1] > 0.2]
        inner = np.column_stack([jaw[::-1, 0] * 0.74, np.minimum(jaw[::-1, 1] * 0.9, face.mouth_y + 0.18)])
        beard = canvas.outline(np.concatenate([jaw, inner]), 0.12)
        canvas.fill(beard, face.hair, opacity=canvas.conditions.beard * 0.85, soft=0.035)


def _marks(canvas: Canvas, face: Identity) -> None:
    """Paints the details of a person: freckles, moles and furrows."""
    for spots, color, opacity in ((face.freckles, (0.72, 0.6, 0.52), 0.75), (face.moles, (0.45, 0.4, 0.38), 0.9)):
        if len(spots):
            discs = spots[:, None, :2] + spots[:, None, 2:] * ellipse(0, 0, 1, 1)
            canvas.on_face(discs, face.skin * color, opacity=opacity, soft=0.004)
    cheek, frown, forehead, crow, chin = face.furrows
    t = np.linspace(-1, 1, 9)
    arc = 0.02 * t**2
    _furrow(canvas, face, np.column_stack([0.3 * t, -0.5 + arc]), forehead)
    _furrow(canvas, face, np.column_stack([0.26 * t, -0.58 + arc]), forehead)
    _furrow(canvas, face, np.column_stack([0.07 * t, face.mouth_y + 0.27 + arc * 2]), chin)
    for side in (-1, 1):
        x, y = _eye_center(face, side)
        fold = np.array([(0.2, 0.0), (0.28, 0.1), (0.34, 0.22)]) * (side, 1) + (0, face.eye_y + face.nose_length)
        _furrow(canvas, face, fold, cheek)
        _furrow(canvas, face, np.array([(side * 0.05, y - 0.17), (side * 0.045, y - 0.04)]), frown)
        for slope in (-0.04, 0.0, 0.04):
            outer = x + side * face.eye_width
            _furrow(
                canvas, face, np.array([(outer + side * 0.04, y + slope), (outer + side * 0.1, y + 2 * slope)]), crow
            )


def _furrow(canvas: Canvas, face: Identity, points: Points, depth: float) -> None:
    """Paints a line on the skin; ``depth`` is 0 to 1."""
    if depth > 0.1:
        canvas.on_face(
            np.concatenate([points, points[::-1] + (0, 0.012)]), face.skin * 0.5, opacity=0.8 * depth, soft=0.006
        )


def _shade(canvas: Canvas, face: Identity, rng: np.random.Generator) -> None:
    """Shades what is painted on the head: Lambert shading of its ellipsoid, and the skin's texture."""
    outline = canvas.outline(_contour(face))[None]
    part, low = canvas.around(outline, 2)
    y, x = np.mgrid[: part.shape[0], : part.shape[1]].astype(np.float32)
    x, y = (x + low[0] - canvas.center[0]) / canvas.scale, (y + low[1] - canvas.center[1]) / canvas.scale
    nx, ny = x / (face.width * 1.12), y / 1.2
    nz = np.sqrt(np.maximum(1 - nx**2 - ny**2, 0.04))
    lx, ly, lz = canvas.conditions.light.astype(np.float32)
    lambert = np.maximum((nx * lx + ny * ly + nz * lz) / np.sqrt(nx**2 + ny**2 + nz**2), 0.0)
    texture = cv2.resize(
        rng.normal(0, 0.012, (24, 20)).astype(np.float32), x.shape[::-1], interpolation=cv2.INTER_CUBIC
    )
    ambient = canvas.conditions.ambient
    shade = ambient + (1.08 - ambient) * lambert + texture
    mask = polygon_mask(x.shape, outline - low).astype(np.float32) / 255
    part[:] = (part * (1 + mask * (shade - 1))[..., None]).clip(0, 255)


def _eye_center(face: Identity, side: int) -> Points:
    return np.array([side * face.eye_gap, face.eye_y])


def _eye(canvas: Canvas, face: Identity, side: int) -> None:
    conditions = canvas.conditions
    x, y = _eye_center(face, side)
    across, up = face.eye_width, face.eye_height * conditions.eye_open
    socket = ellipse(x, y - 0.03, across * 1.35, face.eye_height + 0.09)
    canvas.on_face(socket, face.skin * 0.6, opacity=0.4, soft=0.045)
    t = np.linspace(-1, 1, 13)
    tilt = -face.eye_tilt * t * side
    upper = np.column_stack([x + across * t, y + tilt - up * (1 - t**2) ** 0.8])
    lower = np.column_stack([x + across * t, y + tilt + 0.75 * up * (1 - t**2)])
    canvas.on_face(np.concatenate([upper, lower[::-1]]), np.array([236, 232, 226]) * min(conditions.exposure, 1.0))
    iris = np.array([x, y]) + conditions.gaze * (across * 0.35, up * 0.3)
    radius = min(face.eye_height * 0.95, across * 0.55)
    for size, color in ((1.0, face.iris), (0.48, np.array([14, 12, 12]))):
        disc = ellipse(iris[0], iris[1], radius * size, radius * size)
        disc[:, 1] = disc[:, 1].clip(*(np.interp(disc[:, 0], *lid.T) for lid in (upper, lower)))
        canvas.on_face(disc, color)
    glint = ellipse(iris[0] - radius * 0.3, iris[1] - radius * 0.35, radius * 0.2, radius * 0.2)
    canvas.on_face(glint, np.array([250, 250, 250]))
    canvas.line(canvas.surface(upper), face.skin * 0.22, face.lash)
    canvas.line(canvas.surface(lower), face.skin * 0.6, 0.008)
    above, deep = face.lid
    crease = upper - (0, above)
    canvas.on_face(np.concatenate([crease, crease[::-1] + (0, 0.014)]), face.skin * 0.4, opacity=deep, soft=0.005)
    brow = y - face.brow_height - face.brow_arch * (1 - t**2) - face.brow_tilt * t * side - conditions.brow_raise
    thickness = face.brow_thickness * (0.65 - 0.35 * side * t)
    brow_outline = band(x + side * 0.01 + across * face.brow_width * t, brow - thickness, brow + thickness)
    canvas.on_face(brow_outline, face.hair * 0.75, opacity=0.9, soft=0.008)


def _nose_tip(face: Identity) -> Points:
    return np.array([0.0, face.eye_y + face.nose_length, DEPTH + 0.2])


def _nose(canvas: Canvas, face: Identity) -> None:
    tip = _nose_tip(face)
    top = face.eye_y + 0.05
    w = face.nose_width
    bridge = np.array([(0.0, top, DEPTH * 0.98), (0.0, tip[1] * 0.6 + top * 0.4, DEPTH + 0.1), tip])
    shadow_side = -1 if canvas.conditions.light[0] > 0 else 1
    flank = np.array(
        [(shadow_side * 0.07, top, DEPTH * 0.93), (shadow_side * w, tip[1] + 0.02, DEPTH * 0.98), tip, bridge[0]]
    )
    canvas.fill(canvas.project(flank), face.skin * 0.6, opacity=0.4, soft=0.025)
    base = np.array(
        [(-w, tip[1], DEPTH), (0, tip[1] + 0.12, DEPTH + 0.06), (w, tip[1], DEPTH), (0, tip[1] + 0.02, tip[2])]
    )
    canvas.fill(canvas.project(base), face.skin * 0.55, opacity=0.5, soft=0.018)
    for side in (-1, 1):
        nostril = canvas.flat(ellipse(side * w * 0.5, tip[1] + 0.055, w * 0.27, face.nostril), DEPTH + 0.06)
        canvas.fill(nostril, face.skin * 0.25, opacity=0.85, soft=0.008)
        span = (-0.6, 2.3) if side > 0 else (np.pi - 2.3, np.pi + 0.6)
        wing = ellipse(side * w * 0.72, tip[1] + 0.015, w * 0.36, 0.07, span)
        canvas.line(canvas.flat(wing, DEPTH + 0.02), face.skin * 0.55, 0.012)
    canvas.line(canvas.project(bridge[1:] + (0.0, -0.02, 0.02)), np.minimum(face.skin * 1.14, 255), 0.03)
    ball = canvas.flat(ellipse(0, tip[1] - 0.005, w * 0.5, 0.06), tip[2])
    canvas.fill(ball, np.minimum(face.skin * 1.12, 255), opacity=0.45, soft=0.025)


def _mouth(canvas: Canvas, face: Identity) -> Points:
    """Paints the mouth and returns its two corners, (2, 2) px."""
    conditions = canvas.conditions
    t = np.linspace(-1, 1, 17)
    half = face.mouth_width * (1 + 0.16 * max(conditions.smile, 0))
    curve = face.mouth_y - 0.085 * conditions.smile * t**2
    gape = 0.13 * conditions.mouth_open * (1 - t**2)
    upper_lip, lower_lip = face.lips
    bow = upper_lip * (1 - t**2) ** 0.6 * (1 - face.bow * np.exp(-((t / 0.18) ** 2)))
    x = half * t
    upper, lower = curve - gape * 0.35, curve + gape * 0.65
    shadow = ellipse(0, face.mouth_y + 0.09 + lower_lip, half * 0.6, 0.035)
    canvas.on_face(shadow, face.skin * 0.6, opacity=0.4, soft=0.03)
    canvas.on_face(band(x, upper - bow, upper + 0.006), face.lip_color * 0.86, soft=0.006)
    canvas.on_face(band(x, lower - 0.006, lower + lower_lip * (1 - t**2) ** 0.7), face.lip_color, soft=0.006)
    if conditions.mouth_open > 0.05:
        canvas.on_face(band(x * 0.96, upper, lower), np.array([62, 22, 24]))
        teeth = band(x * 0.86, upper, upper + gape * 0.45)
        canvas.on_face(teeth, np.array([232, 228, 218]) * min(conditions.exposure, 1))
    else:
        canvas.line(canvas.surface(np.column_stack([x, curve])), face.lip_color * 0.45, 0.014)
    if conditions.moustache and face.beard:
        hair = band(x * 0.98, upper - bow - 0.1 * (1 - 0.45 * t**2), upper - bow * 0.75)
        canvas.on_face(hair, face.hair, opacity=conditions.moustache * 0.9, soft=0.014)
    return canvas.surface(np.array([(-half, curve[0]), (half, curve[-1])]))


def _hair_behind(canvas: Canvas, face: Identity) -> None:
    conditions = canvas.conditions
    if conditions.hair_style == 4:
        fall = np.array(
            [(-1.18, -0.3), (-1.0, -0.95), (0, -1.28), (1.0, -0.95), (1.18, -0.3), (1.28, 1.25), (-1.28, 1.25)]
        ) * (face.width * 1.05, 1.0)
        canvas.fill(canvas.outline(smooth(fall), -0.25), conditions.hair * 0.8, soft=0.03)
    elif conditions.hair_style:
        canvas.fill(
            canvas.outline(ellipse(0, -0.34, face.width * 1.08, 0.86), -0.12), conditions.hair * 0.88, soft=0.02
        )


def _hair_in_front(canvas: Canvas, face: Identity) -> None:
    conditions = canvas.conditions
    if conditions.hair_style == 0:
        return
    outline = _contour(face)
    top = outline[outline[:, 1] < -0.3]
    top = top[np.argsort(top[:, 0])] * (1.06, 1.12)
    u = np.linspace(1, -1, 21)
    line = {
        1: conditions.hairline + 0.3 * np.abs(u) ** 3,
        2: conditions.hairline + 0.12 * u + 0.32 * np.abs(u) ** 4,
        3: np.minimum(conditions.hairline + 0.24 + 0.03 * np.cos(u * 23), face.eye_y - face.brow_height + 0.02)
        + 0.16 * np.abs(u) ** 4,
        4: conditions.hairline + 0.45 * np.abs(u - 0.15) ** 1.7,
        5: conditions.hairline + 0.14 + 0.12 * u**2,
    }[conditions.hair_style]
    front = canvas.surface(np.column_stack([u * face.width * 1.03, line]))
    canvas.fill(np.concatenate([canvas.outline(top), front]), conditions.hair, soft=0.012)
    sheen = -0.86 + 0.3 * np.linspace(-0.6, 0.6, 9) ** 2
    glow = canvas.flat(band(np.linspace(-0.4, 0.4, 9), sheen, sheen + 0.1), 0.4)
    canvas.fill(glow, np.minimum(conditions.hair * 1.6 + 22, 255), opacity=0.3, soft=0.05)


def _glasses(canvas: Canvas, face: Identity) -> None:
    conditions = canvas.conditions
    color = np.array([30, 28, 30]) if conditions.glasses == 1 else conditions.hair * 0.4 + 10
    for side in (-1, 1):
        x, y = _eye_center(face, side)
        rim = ellipse(x, y + 0.02, 0.225, 0.175) if conditions.glasses == 1 else rounded_box(x, y + 0.03, 0.23, 0.14)
        canvas.line(canvas.flat(np.concatenate([rim, rim[:1]]), DEPTH * 0.95), color, 0.028)
        temple = np.array([(x + side * 0.22, y, DEPTH * 0.95), (side * face.width * 1.04, y + 0.03, 0.0)])
        canvas.line(canvas.project(temple), color, 0.024)
    inner = face.eye_gap - 0.22
    bridge = np.array(
        [(-inner, face.eye_y - 0.01, DEPTH), (0, face.eye_y - 0.04, DEPTH + 0.06), (inner, face.eye_y - 0.01, DEPTH)]
    )
    canvas.line(canvas.project(bridge), color, 0.026)


def _apply_camera(
    pixels: np.ndarray, face: Identity, conditions: Conditions, width: int, height: int, rng: np.random.Generator
) -> np.ndarray:
    """Resizes to the final size, then applies lens blur, exposure, metered on the face, and sensor noise."""
    image = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    if conditions.blur > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), conditions.blur)
    metered = (METERED_LEVEL / face.skin.mean()) ** METERING
    image = image * (metered * conditions.exposure * conditions.tint).astype(np.float32)
    image += rng.standard_normal(image.shape, np.float32) * np.float32(conditions.noise)
    return image.clip(0, 255).astype(np.uint8)


def _contour(face: Identity) -> Points:
    """(N, 2) outline of the head: an ellipse above the centre, a superellipse below."""
    t = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    c, s = np.cos(t), np.sin(t)
    power = 2 / face.jaw
    x_low = np.sign(c) * np.abs(c) ** power * (1 - 0.12 * np.maximum(s, 0) ** 2)
    x = np.where(s > 0, x_low, c)
    y = np.where(s > 0, np.abs(s) ** (0.5 + 0.5 * power) * face.chin, s * 1.02)
    return np.column_stack([x * face.width, y])
