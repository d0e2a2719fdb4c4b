"""Datasets of scenes: written in COCO's layout with the truth beside it, and the truth read back.

OUT/images/000000000007.jpg
OUT/annotations/captions_train2017.json, captions_val2017.json, captions_test2017.json where rules have a test
OUT/scenes.jsonl                                                    the truth of each scene, one a line
"""

import json
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from features.io.locations import local_path
from features.io.output_dirs import make_folder
from features.synthetic.scenes.dataset_config import PLAIN, SceneDatasetConfig, parse_object_counts
from features.synthetic.scenes.grammar import CAPTIONS
from features.synthetic.scenes.layout import make_scene
from features.synthetic.scenes.renderer import draw_scene
from features.synthetic.scenes.scene import HEIGHT, WIDTH, PlacedObject, Scene, SceneObject
from schemas.errors import UsageError
from schemas.options.data import SynthScenes
from schemas.strict_json import parse_json


def synth_scenes(options: SynthScenes) -> dict[str, Any]:
    """`capt synth scenes`: see `make_scenes`."""
    rules = SceneDatasetConfig(parse_object_counts(options.objects_per_scene), options.held_out_fraction)
    return make_scenes(options.out, options.num_images, options.seed, rules)


def make_scenes(out: str | Path, count: int, seed: int, rules: SceneDatasetConfig = PLAIN) -> dict[str, Any]:
    """Writes a dataset of scenes in COCO's layout; a folder that holds this very dataset is left as it is.

    The same seed gives the same bytes (with the same Pillow and NumPy), and a larger count the same scenes before
    others. The folder appears under its name once it is complete.

    Args:
        out: Path. The folder; it does not exist yet, or is empty.
        count: int. Number of scenes, at least 5, so that there is one to validate on.
        seed: int. At least 0.
        rules: Which scenes there are.

    Returns: dict with `images`, `captions`, the images of each split by its name, `bytes` and `seed`.

    Raises: UsageError where the folder holds something else, or an argument is out of range.
    """
    if count < 5 or seed < 0:
        raise UsageError(f"got count {count}, seed {seed}", hint="a count of at least 5 and a seed of at least 0")
    out, info = local_path(out).absolute(), _info(count, seed, rules)
    make_folder(
        out,
        f"{count} scenes of seed {seed}",
        holds=lambda made: parse_json(_annotations(made, "train").read_bytes())["info"] == info,
        write=lambda made: _write(made, count, seed, rules),
    )
    return {
        "images": count,
        "captions": count * CAPTIONS,
        **Counter(rules.split(number) for number in range(1, count + 1)),
        "bytes": sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        "seed": seed,
    }


def load_scenes(out: Path) -> list[Scene]:
    """The truth of every scene that `make_scenes` wrote to a folder, by number."""
    lines = (Path(out) / "scenes.jsonl").read_text().splitlines()
    return [_from_truth(json.loads(line)) for line in lines]


def _write(made: Path, count: int, seed: int, rules: SceneDatasetConfig) -> None:
    (made / "images").mkdir()
    (made / "annotations").mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        scenes = list(pool.map(lambda number: _write_scene(made, seed, number, rules), range(1, count + 1)))
    for split in {scene.split for scene in scenes}:
        chosen = [scene for scene in scenes if scene.split == split]
        _annotations(made, split).write_text(json.dumps(_coco(chosen, _info(count, seed, rules))))
    (made / "scenes.jsonl").write_text("".join(json.dumps(_truth(scene)) + "\n" for scene in scenes))


def _write_scene(folder: Path, seed: int, number: int, rules: SceneDatasetConfig) -> Scene:
    scene = make_scene(seed, number, rules)
    (folder / "images" / scene.file_name).write_bytes(draw_scene(scene, seed))
    return scene


def _annotations(folder: Path, split: str) -> Path:
    return folder / "annotations" / f"captions_{split}2017.json"


def _info(count: int, seed: int, rules: SceneDatasetConfig) -> dict[str, Any]:
    description = {"description": "synthetic scenes of coloured shapes", "version": "1", "count": count, "seed": seed}
    if rules == PLAIN:
        return description
    return {**description, "objects": [*rules.objects], "held_out_combinations": rules.held_out_combinations}


def _coco(scenes: Sequence[Scene], info: dict[str, Any]) -> dict[str, Any]:
    """COCO's caption annotations (cocodataset.org, data format, captions)."""
    return {
        "info": info,
        "licenses": [],
        "images": [
            {"id": scene.number, "file_name": scene.file_name, "width": WIDTH, "height": HEIGHT} for scene in scenes
        ],
        "annotations": [
            {"id": (scene.number - 1) * CAPTIONS + place, "image_id": scene.number, "caption": caption}
            for scene in scenes
            for place, caption in enumerate(scene.captions, 1)
        ],
    }


def _truth(scene: Scene) -> dict[str, Any]:
    return {
        "image_id": scene.number,
        "file_name": scene.file_name,
        "split": scene.split,
        "objects": [{**vars(drawn.thing), "box": drawn.box, "turn": drawn.turn} for drawn in scene.objects],
        "relation": scene.description.relation,
        "captions": scene.captions,
    }


def _from_truth(truth: dict[str, Any]) -> Scene:
    x, y, width, height = range(4)
    objects = tuple(
        PlacedObject(
            SceneObject(each["size"], each["color"], each["shape"]),
            (each["box"][x], each["box"][y], each["box"][width], each["box"][height]),
            each["turn"],
        )
        for each in truth["objects"]
    )
    return Scene(truth["image_id"], objects, tuple(truth["captions"]), truth["split"])
