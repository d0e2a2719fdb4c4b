"""Outlines: the corners of a shape, turned and scaled."""

import math

import numpy as np
import numpy.typing as npt

from features.synthetic.scenes.scene import Shape

Floats = npt.NDArray[np.float64]


def outline(shape: Shape, turn: int) -> Floats:
    """Corners of the turned shape about its box's centre, scaled so that the longer side is 2: float array [N, 2]."""
    turned = _upright_outline(shape) @ _rotation(turn)
    low, high = turned.min(axis=0), turned.max(axis=0)
    centred: Floats = (turned - (low + high) / 2) * 2 / (high - low).max()
    return centred


def _rotation(degrees: int) -> Floats:
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return np.array([[cosine, sine], [-sine, cosine]])


def _upright_outline(shape: Shape) -> Floats:
    """Corners with x to the right and y down, as pictures have them: float array [N, 2]."""
    if shape == "square":
        return np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]])
    if shape == "cross":
        third = 1 / 3
        quarter = np.array([[-third, -1], [third, -1], [third, -third]])
        return np.concatenate([quarter @ _rotation(90 * turns) for turns in range(4)])
    corners = {"circle": 90, "triangle": 3, "star": 10, "heart": 90}[shape]
    angle = np.arange(corners) * 2 * np.pi / corners
    if shape == "heart":
        heights = 13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle)
        return np.stack([16 * np.sin(angle) ** 3, -heights], axis=1)
    radius = np.where(np.arange(corners) % 2, 0.42, 1) if shape == "star" else np.ones(corners)
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=1)
