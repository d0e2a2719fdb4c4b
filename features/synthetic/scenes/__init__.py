"""Generates synthetic scenes: colored shapes on a textured background, with captions that can be checked.

A scene is a function of its seed, its number and the `SceneDatasetConfig`. `parse_caption` inverts `write_captions`:
`Description.matches` compares any caption, also a predicted one, with a scene.
"""

from features.synthetic.scenes.dataset import load_scenes, make_scenes, synth_scenes
from features.synthetic.scenes.dataset_config import SceneDatasetConfig
from features.synthetic.scenes.grammar import CAPTIONS, parse_caption, write_captions
from features.synthetic.scenes.layout import make_scene
from features.synthetic.scenes.renderer import draw_scene
from features.synthetic.scenes.scene import (
    COLORS,
    HEIGHT,
    OPPOSITE,
    RELATIONS,
    SHAPES,
    SIZES,
    WIDTH,
    Combination,
    Description,
    PlacedObject,
    Relation,
    Scene,
    SceneObject,
    find_relation,
    list_combinations,
)

__all__ = [
    "CAPTIONS",
    "COLORS",
    "HEIGHT",
    "OPPOSITE",
    "RELATIONS",
    "SHAPES",
    "SIZES",
    "WIDTH",
    "Combination",
    "Description",
    "PlacedObject",
    "Relation",
    "Scene",
    "SceneDatasetConfig",
    "SceneObject",
    "draw_scene",
    "find_relation",
    "list_combinations",
    "load_scenes",
    "make_scene",
    "make_scenes",
    "parse_caption",
    "synth_scenes",
    "write_captions",
]
