"""Synthetic scenes: coloured shapes on a textured ground, with captions whose truth can be checked.

A scene is a function of (seed, number) alone, and of the rules that say which scenes there are. `make_scenes` writes
scenes as a dataset in COCO's layout.

`parse_caption` is the inverse of the grammar that `write_captions` speaks, so that a caption, a model's too, can be
held against a scene with `Description.holds_in`.
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
