"""Synthetic scenes: coloured shapes on a textured ground, with captions whose truth can be checked.

A scene is a function of (seed, number) alone. `make_scenes` writes scenes as a dataset in COCO's layout:

    OUT/images/000000000007.jpg
    OUT/annotations/captions_train2017.json, captions_val2017.json      every fifth scene is val
    OUT/scenes.jsonl                                                    the truth of each scene, one a line

`parse_caption` is the inverse of the grammar that `write_captions` speaks, so that a caption, a model's too, can be
held against a scene with `Description.holds_in`.
"""

import json
import math
import os
import re
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from schemas.errors import UsageError

Shape = Literal["circle", "square", "triangle", "star", "cross", "heart"]
Colour = Literal["red", "orange", "yellow", "green", "blue", "purple", "black", "white"]
Size = Literal["small", "large"]
Relation = Literal["left of", "right of", "above", "below"]
Box = tuple[int, int, int, int]

SHAPES: tuple[Shape, ...] = get_args(Shape)
COLOURS: tuple[Colour, ...] = get_args(Colour)
SIZES: tuple[Size, ...] = get_args(Size)
RELATIONS: tuple[Relation, ...] = get_args(Relation)
OPPOSITE: dict[Relation, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}

WIDTH, HEIGHT = 320, 240
CAPTIONS = 5

_T = TypeVar("_T")


@dataclass(frozen=True)
class Thing:
    """An object as a noun phrase names it."""

    size: Size
    colour: Colour
    shape: Shape


@dataclass(frozen=True)
class Drawn:
    """An object of a scene.

    Args:
        thing: Thing. What it looks like.
        box: tuple of int. x, y, width, height in pixels, as in COCO; the shape touches all four sides.
        turn: int. How far the shape is turned from upright, in degrees.
    """

    thing: Thing
    box: Box
    turn: int

    @property
    def centre(self) -> tuple[float, float]:
        """x, y of the box's centre in pixels."""
        x, y, width, height = self.box
        return x + width / 2, y + height / 2


@dataclass(frozen=True)
class Description:
    """What a caption claims.

    Args:
        things: tuple of Thing. The objects, 1 to 3, of which the relation is between the first two.
        relation: Relation or None. How the first stands to the second; None where there is one object.
    """

    things: tuple[Thing, ...]
    relation: Relation | None = None

    @property
    def canonical(self) -> "Description":
        """The same claim told with `left of` or `above`."""
        if self.relation is None or self.relation in ("left of", "above"):
            return self
        first, second, *rest = self.things
        return Description((second, first, *rest), OPPOSITE[self.relation])

    def holds_in(self, scene: "Scene") -> bool:
        """Whether the scene shows these objects and no others, in this relation."""
        at = {drawn.thing: drawn for drawn in scene.objects}
        if len(self.things) != len(at) or set(self.things) != set(at):
            return False
        return self.relation is None or relation_between(at[self.things[0]], at[self.things[1]]) == self.relation


@dataclass(frozen=True)
class Scene:
    """A scene's truth.

    Args:
        number: int. Which scene of its seed, from 1; also its image id.
        objects: tuple of Drawn. 1 to 3, no two of the same colour and shape; the captions relate the first two.
        captions: tuple of str. `CAPTIONS` different sentences, each true of the scene.
    """

    number: int
    objects: tuple[Drawn, ...]
    captions: tuple[str, ...]

    @property
    def file_name(self) -> str:
        """The image's name, as COCO 2017 names its images."""
        return f"{self.number:012d}.jpg"

    @property
    def split(self) -> str:
        """`val` for every fifth scene, else `train`; it does not change as a dataset grows."""
        return "train" if self.number % 5 else "val"

    @property
    def description(self) -> Description:
        """What every caption of the scene says in its own way."""
        return _describe(self.objects)


# === Dataset ===


def make_scenes(out: str | Path, count: int, seed: int) -> dict[str, Any]:
    """Writes a dataset of scenes in COCO's layout; a folder that holds this very dataset is left as it is.

    The same seed gives the same bytes (with the same Pillow and NumPy), and a larger count the same scenes before
    others. The folder appears under its name once it is complete.

    Args:
        out: Path. The folder; it does not exist yet, or is empty.
        count: int. Number of scenes, at least 5, so that there is one to validate on.
        seed: int. At least 0.

    Returns: dict with `images`, `captions`, `train`, `val` (images of each split), `bytes` and `seed`.

    Raises: UsageError where the folder holds something else, or an argument is out of range.
    """
    if count < 5 or seed < 0:
        raise UsageError(f"got count {count}, seed {seed}", mend="a count of at least 5 and a seed of at least 0")
    out = Path(out).absolute()
    if not _holds(out, count, seed):
        _write_aside(out, count, seed)
    return {
        "images": count,
        "captions": count * CAPTIONS,
        "train": count - count // 5,
        "val": count // 5,
        "bytes": sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        "seed": seed,
    }


def load_scenes(out: Path) -> list[Scene]:
    """The truth of every scene that `make_scenes` wrote to a folder, by number."""
    lines = (Path(out) / "scenes.jsonl").read_text().splitlines()
    return [_from_truth(json.loads(line)) for line in lines]


def _holds(out: Path, count: int, seed: int) -> bool:
    """Whether the folder holds the dataset; UsageError where it holds something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        if json.loads(_annotations(out, "train").read_text())["info"] == _info(count, seed):
            return True
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UsageError(
        f"holds something else than {count} scenes of seed {seed}",
        where=str(out),
        mend="name a folder that does not exist yet",
    )


def _write_aside(out: Path, count: int, seed: int) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as aside:
        made = Path(aside) / out.name
        (made / "images").mkdir(parents=True)
        (made / "annotations").mkdir()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            scenes = list(pool.map(lambda number: _write_scene(made, seed, number), range(1, count + 1)))
        for split in ("train", "val"):
            chosen = [scene for scene in scenes if scene.split == split]
            _annotations(made, split).write_text(json.dumps(_coco(chosen, _info(count, seed))))
        (made / "scenes.jsonl").write_text("".join(json.dumps(_truth(scene)) + "\n" for scene in scenes))
        made.rename(out)


def _write_scene(folder: Path, seed: int, number: int) -> Scene:
    scene = make_scene(seed, number)
    (folder / "images" / scene.file_name).write_bytes(draw(scene, seed))
    return scene


def _annotations(folder: Path, split: str) -> Path:
    return folder / "annotations" / f"captions_{split}2017.json"


def _info(count: int, seed: int) -> dict[str, Any]:
    return {"description": "synthetic scenes of coloured shapes", "version": "1", "count": count, "seed": seed}


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
        Drawn(
            Thing(each["size"], each["colour"], each["shape"]),
            (each["box"][x], each["box"][y], each["box"][width], each["box"][height]),
            each["turn"],
        )
        for each in truth["objects"]
    )
    return Scene(truth["image_id"], objects, tuple(truth["captions"]))


# === Layout ===

_REACH: dict[Size, tuple[int, int]] = {"small": (19, 25), "large": (40, 50)}  # half the longer side, in pixels
_MARGIN, _GAP, _TURN = 4, 8, 12


def make_scene(seed: int, number: int) -> Scene:
    """The scene of a seed and a number from 1: its objects and captions. `draw` makes the picture."""
    random = np.random.default_rng((seed, number, 0))
    count = int(random.choice([1, 2, 3], p=[0.3, 0.45, 0.25]))
    kinds = random.permutation(len(SHAPES) * len(COLOURS))[:count]
    things = [Thing(_pick(random, SIZES), COLOURS[k % len(COLOURS)], SHAPES[k // len(COLOURS)]) for k in kinds]
    objects = _place(random, things)
    return Scene(number, objects, write_captions(_describe(objects), random))


def relation_between(one: Drawn, other: Drawn) -> Relation | None:
    """How an object stands to another; None where they lie across.

    Their centres must be at least twice as far apart along one axis as along the other.
    """
    dx, dy = (b - a for a, b in zip(one.centre, other.centre, strict=True))
    if abs(dx) >= 2 * abs(dy):
        return "left of" if dx > 0 else "right of"
    if abs(dy) >= 2 * abs(dx):
        return "above" if dy > 0 else "below"
    return None


def _describe(objects: Sequence[Drawn]) -> Description:
    relation = relation_between(objects[0], objects[1]) if len(objects) > 1 else None
    return Description(tuple(drawn.thing for drawn in objects), relation)


def _place(random: np.random.Generator, things: Sequence[Thing]) -> tuple[Drawn, ...]:
    """Boxes inside the picture with a gap between them, the first two in a relation drawn at random."""
    relation = _pick(random, RELATIONS)
    turns = [int(random.integers(-_TURN, _TURN + 1)) for _ in things]
    sides = [_sides(random, thing, turn) for thing, turn in zip(things, turns, strict=True)]
    room = np.array([WIDTH, HEIGHT]) - 2 * _MARGIN - np.array(sides) + 1
    while True:
        corners = _MARGIN + (random.random((len(things), 2)) * room).astype(int)
        boxes: list[Box] = [
            (int(x), int(y), width, height) for (x, y), (width, height) in zip(corners, sides, strict=True)
        ]
        objects = tuple(Drawn(*each) for each in zip(things, boxes, turns, strict=True))
        apart = all(_apart(one.box, other.box) for one, other in combinations(objects, 2))
        if apart and (len(objects) == 1 or relation_between(objects[0], objects[1]) == relation):
            return objects


def _sides(random: np.random.Generator, thing: Thing, turn: int) -> tuple[int, int]:
    least, most = _REACH[thing.size]
    half = int(random.integers(least, most + 1)) * np.abs(_outline(thing.shape, turn)).max(axis=0)
    width, height = np.ceil(2 * half)
    return int(width), int(height)


def _apart(one: Box, other: Box) -> bool:
    """Whether a gap lies between two boxes along at least one axis."""
    return any(
        one[axis] + one[axis + 2] + _GAP <= other[axis] or other[axis] + other[axis + 2] + _GAP <= one[axis]
        for axis in (0, 1)
    )


def _pick(random: np.random.Generator, options: Sequence[_T]) -> _T:
    return options[int(random.integers(len(options)))]


# === Grammar ===

_SIZE_WORDS: dict[Size, tuple[str, ...]] = {"small": ("small", "little"), "large": ("large", "big")}
_RELATION_WORDS: dict[Relation, tuple[str, ...]] = {
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
_ONE = ("{a}", "there is {a}", "the picture shows {a}", "you can see {a}", "this is {a}")
_TWO = (
    "{a} is {relation} {b}",
    "{a} {relation} {b}",
    "there is {a} {relation} {b}",
    "the picture shows {a} {relation} {b}",
    "you can see {a} {relation} {b}",
    "{relation} {b} is {a}",
    "{relation} {b} there is {a}",
)
_THIRD = ("{two}, and there is {c}", "{two}, along with {c}", "{two}, and also {c}")
_THREE = tuple(third.replace("{two}", two) for third in _THIRD for two in _TWO)
_TEMPLATES = (_ONE, _TWO, _THREE)


def write_captions(description: Description, random: np.random.Generator) -> tuple[str, ...]:
    """`CAPTIONS` different sentences that all say the same, a relation being told from either side."""
    captions: dict[str, None] = {}
    while len(captions) < CAPTIONS:
        captions[_sentence(description, random)] = None
    return tuple(captions)


def parse_caption(caption: str) -> Description | None:
    """What a caption claims, or None where it is no sentence of the grammar.

    Capitals and punctuation do not matter, so that a model's output parses as the references do.
    """
    words = " ".join(re.findall(r"\S+", re.sub(r"[.,]", " ", caption.lower())))
    match = next(filter(None, (pattern.fullmatch(words) for pattern in _PATTERNS)), None)
    if match is None:
        return None
    found = match.groupdict()
    things = tuple(_thing_of(found[name]) for name in "abc" if name in found)
    return Description(things, _MEANING[found["relation"]] if "relation" in found else None)


def _sentence(description: Description, random: np.random.Generator) -> str:
    things, relation, words = description.things, description.relation, ""
    if relation is not None:
        if random.integers(2):
            things, relation = (things[1], things[0], *things[2:]), OPPOSITE[relation]
        words = _pick(random, _RELATION_WORDS[relation])
    phrases = {name: _phrase(thing, random) for name, thing in zip("abc", things, strict=False)}
    text = _pick(random, _TEMPLATES[len(things) - 1]).format(relation=words, **phrases)
    return f"{text[0].upper()}{text[1:]}."


def _phrase(thing: Thing, random: np.random.Generator) -> str:
    return f"a {_pick(random, _SIZE_WORDS[thing.size])} {thing.colour} {thing.shape}"


def _thing_of(phrase: str) -> Thing:
    _, size, colour, shape = phrase.split()
    return Thing(
        next(each for each in SIZES if size in _SIZE_WORDS[each]),
        next(each for each in COLOURS if each == colour),
        next(each for each in SHAPES if each == shape),
    )


def _pattern(template: str) -> re.Pattern[str]:
    sizes = [word for words in _SIZE_WORDS.values() for word in words]
    phrase = f"a ({'|'.join(sizes)}) ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
    groups = {name: f"(?P<{name}>{phrase})" for name in "abc"}
    return re.compile(template.replace(",", "").format(relation=f"(?P<relation>{'|'.join(_MEANING)})", **groups))


_MEANING: dict[str, Relation] = {word: relation for relation in RELATIONS for word in _RELATION_WORDS[relation]}
_PATTERNS = tuple(_pattern(template) for templates in _TEMPLATES for template in templates)


# === Picture ===

_PAINT: dict[Colour, tuple[int, int, int]] = {
    "red": (205, 30, 38),
    "orange": (244, 133, 24),
    "yellow": (246, 221, 44),
    "green": (34, 142, 60),
    "blue": (32, 82, 196),
    "purple": (126, 46, 152),
    "black": (22, 22, 24),
    "white": (250, 250, 248),
}
_FINE = 4  # outlines are drawn this many times larger and averaged, so that edges are smooth
_QUALITY = 92

_Floats = npt.NDArray[np.float64]


def draw(scene: Scene, seed: int) -> bytes:
    """The scene's picture, a JPEG of `WIDTH` × `HEIGHT`; the ground and the paint's grain come from the seed."""
    random = np.random.default_rng((seed, scene.number, 1))
    canvas = _ground(random)
    for drawn in scene.objects:
        x, y, width, height = drawn.box
        area = canvas[y : y + height, x : x + width]
        cover = _cover(drawn)[..., None]
        area += cover * (_paint(drawn, random) - area)
    jpeg = BytesIO()
    pixels = np.rint(canvas.clip(0, 255)).astype(np.uint8)
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=_QUALITY)
    return jpeg.getvalue()


def _ground(random: np.random.Generator) -> _Floats:
    """A muted colour with soft blotches, finer mottles and grain, so that a network sees no flat field."""
    colour = random.uniform(105, 185) + random.uniform(-20, 20, 3)
    blotches = _noise(random, 6, 8) * 9 + _noise(random, 30, 40) * 5
    return colour + blotches[..., None] + random.normal(0, 3, (HEIGHT, WIDTH, 1))


def _noise(random: np.random.Generator, rows: int, columns: int) -> _Floats:
    coarse = Image.fromarray(random.normal(0, 1, (rows, columns)).astype(np.float32))
    return np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float64)


def _paint(drawn: Drawn, random: np.random.Generator) -> _Floats:
    """The colour, a little off its name's, lit from above, with grain: float array [height, width, 3]."""
    _, _, width, height = drawn.box
    colour = np.array(_PAINT[drawn.thing.colour]) + random.uniform(-8, 8, 3)
    light = np.linspace(1.06, 0.9, height)[:, None, None]
    return colour * light + random.normal(0, 3, (height, width, 1))


def _cover(drawn: Drawn) -> _Floats:
    """How much of each pixel of the box the shape covers: float array [height, width] in 0…1."""
    _, _, width, height = drawn.box
    outline = _outline(drawn.thing.shape, drawn.turn)
    corners = (outline / np.abs(outline).max(axis=0) + 1) / 2 * (width * _FINE - 1, height * _FINE - 1)
    mask = Image.new("L", (width * _FINE, height * _FINE))
    ImageDraw.Draw(mask).polygon([(x, y) for x, y in corners.tolist()], fill=255)
    return np.asarray(mask.resize((width, height), Image.Resampling.BOX), np.float64) / 255


def _outline(shape: Shape, turn: int) -> _Floats:
    """Corners of the turned shape about its box's centre, scaled so that the longer side is 2: float array [N, 2]."""
    turned = _upright_outline(shape) @ _rotation(turn)
    low, high = turned.min(axis=0), turned.max(axis=0)
    centred: _Floats = (turned - (low + high) / 2) * 2 / (high - low).max()
    return centred


def _rotation(degrees: int) -> _Floats:
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    return np.array([[cosine, sine], [-sine, cosine]])


def _upright_outline(shape: Shape) -> _Floats:
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
