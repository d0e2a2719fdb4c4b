"""Writes datasets of scenes in COCO's layout, with the ground truth beside it, and reads the ground truth.

OUT/images/000000000007.jpg
OUT/annotations/captions_train2017.json, captions_val2017.json; captions_test2017.json if there is a test split
OUT/scenes.jsonl                                                    ground truth, one scene per line
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from features.io.atomic_files import write_directory
from features.io.file_trees import count_bytes
from features.io.locations import local_path
from features.synthetic.scenes.generator import DEFAULT_CONFIG, SceneDatasetConfig, make_scene
from features.synthetic.scenes.grammar import CAPTIONS
from features.synthetic.scenes.renderer import draw_scene
from features.synthetic.scenes.scene import HEIGHT, WIDTH, PlacedObject, Scene, SceneObject
from schemas.errors import UsageError
from schemas.options.data import SynthScenes
from schemas.strict_json import parse_json


def synth_scenes(options: SynthScenes) -> dict[str, Any]:
    """Runs `capt synth scenes`; see `make_scenes`."""
    try:
        counts = tuple(map(int, options.objects_per_scene.split(",")))
    except ValueError:
        message, hint = f"got {options.objects_per_scene!r}", "Separate the numbers by commas: 2,3."
        raise UsageError(message, location="--objects-per-scene", hint=hint) from None
    config = SceneDatasetConfig(counts, options.held_out_fraction)
    return make_scenes(options.out, options.num_images, options.seed, config)


def make_scenes(
    out: str | Path, num_images: int, seed: int, config: SceneDatasetConfig = DEFAULT_CONFIG
) -> dict[str, Any]:
    """Writes a dataset of scenes atomically. An equal dataset is kept.

    The same seed produces the same bytes with the same versions of Pillow and NumPy. A larger dataset starts with the
    scenes of a smaller one. At least 5 scenes are necessary, so that one is in the validation split.

    Returns:
        `images`, `captions`, the number of images of each split by its name, `bytes` and `seed`.
    """
    if num_images < 5 or seed < 0:
        hint = "Use at least 5 scenes and a seed of at least 0."
        raise UsageError(f"got {num_images} scenes, seed {seed}", hint=hint)
    out, info = local_path(out).absolute(), _describe_dataset(num_images, seed, config)
    write_directory(
        out,
        f"{num_images} scenes of seed {seed}",
        is_same=lambda root: parse_json(_annotation_path(root, "train").read_bytes())["info"] == info,
        write_into=lambda root: _write(root, num_images, seed, config),
    )
    return {
        "images": num_images,
        "captions": num_images * CAPTIONS,
        **Counter(config.split(number) for number in range(1, num_images + 1)),
        "bytes": count_bytes(out),
        "seed": seed,
    }


def load_scenes(out: Path) -> list[Scene]:
    """Returns the ground truth of a dataset by scene number."""
    return [_from_json(json.loads(line)) for line in (Path(out) / "scenes.jsonl").read_text().splitlines()]


def _write(root: Path, num_images: int, seed: int, config: SceneDatasetConfig) -> None:
    (root / "images").mkdir()
    (root / "annotations").mkdir()

    def write_image(number: int) -> Scene:
        scene = make_scene(seed, number, config)
        (root / "images" / scene.file_name).write_bytes(draw_scene(scene, seed))
        return scene

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        scenes = list(pool.map(write_image, range(1, num_images + 1)))
    info = _describe_dataset(num_images, seed, config)
    for split in {scene.split for scene in scenes}:
        annotations = _to_coco([scene for scene in scenes if scene.split == split], info)
        _annotation_path(root, split).write_text(json.dumps(annotations))
    (root / "scenes.jsonl").write_text("".join(json.dumps(_to_json(scene)) + "\n" for scene in scenes))


def _annotation_path(root: Path, split: str) -> Path:
    return root / "annotations" / f"captions_{split}2017.json"


def _describe_dataset(num_images: int, seed: int, config: SceneDatasetConfig) -> dict[str, Any]:
    info = {"description": "synthetic scenes of colored shapes", "version": "1", "count": num_images, "seed": seed}
    if config == DEFAULT_CONFIG:
        return info
    return {**info, "object_counts": [*config.object_counts], "held_out_fraction": config.held_out_fraction}


def _to_coco(scenes: Sequence[Scene], info: dict[str, Any]) -> dict[str, Any]:
    """Returns caption annotations in the format of COCO (cocodataset.org)."""
    return {
        "info": info,
        "licenses": [],
        "images": [
            {"id": scene.number, "file_name": scene.file_name, "width": WIDTH, "height": HEIGHT} for scene in scenes
        ],
        "annotations": [
            {"id": (scene.number - 1) * CAPTIONS + index, "image_id": scene.number, "caption": caption}
            for scene in scenes
            for index, caption in enumerate(scene.captions, 1)
        ],
    }


def _to_json(scene: Scene) -> dict[str, Any]:
    return {
        "image_id": scene.number,
        "file_name": scene.file_name,
        "split": scene.split,
        "objects": [
            {**vars(placed.scene_object), "box": placed.box, "rotation": placed.rotation} for placed in scene.objects
        ],
        "relation": scene.description.relation,
        "captions": scene.captions,
    }


def _from_json(record: dict[str, Any]) -> Scene:
    objects = tuple(
        PlacedObject(SceneObject(each["size"], each["color"], each["shape"]), tuple(each["box"]), each["rotation"])
        for each in record["objects"]
    )
    return Scene(record["image_id"], objects, tuple(record["captions"]), record["split"])
