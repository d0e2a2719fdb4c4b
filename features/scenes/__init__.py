"""Synthetic scenes: coloured shapes on a textured ground, with captions whose truth can be checked.

A scene is a function of (seed, number) alone, and of the rules that say which scenes there are. `make_scenes` writes
scenes as a dataset in COCO's layout.

`parse_caption` is the inverse of the grammar that `write_captions` speaks, so that a caption, a model's too, can be
held against a scene with `Description.holds_in`.
"""

from features.scenes.dataset import load_scenes, make_scenes, synth_scenes
from features.scenes.facts import (
    COLOURS,
    HEIGHT,
    OPPOSITE,
    RELATIONS,
    SHAPES,
    SIZES,
    WIDTH,
    Combination,
    Description,
    Drawn,
    Relation,
    Scene,
    Thing,
    combinations_of,
    relation_between,
)
from features.scenes.grammar import CAPTIONS, parse_caption, write_captions
from features.scenes.layout import make_scene
from features.scenes.picture import draw
from features.scenes.rules import Rules

__all__ = [
    "CAPTIONS",
    "COLOURS",
    "HEIGHT",
    "OPPOSITE",
    "RELATIONS",
    "SHAPES",
    "SIZES",
    "WIDTH",
    "Combination",
    "Description",
    "Drawn",
    "Relation",
    "Rules",
    "Scene",
    "Thing",
    "combinations_of",
    "draw",
    "load_scenes",
    "make_scene",
    "make_scenes",
    "parse_caption",
    "relation_between",
    "synth_scenes",
    "write_captions",
]
