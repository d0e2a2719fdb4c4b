"""The captions of synthetic scenes match the scenes, and the images show them."""

import hashlib
import json
from collections import Counter
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import capt
from features.synthetic.scenes import dataset, renderer
from features.synthetic.scenes.dataset import load_scenes, make_scenes
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
    Description,
    PlacedObject,
    Scene,
    SceneObject,
    find_relation,
    list_combinations,
)
from schemas.errors import UsageError

scene_objects = st.builds(SceneObject, st.sampled_from(SIZES), st.sampled_from(COLORS), st.sampled_from(SHAPES))
any_scene = st.builds(make_scene, st.integers(0, 2**63), st.integers(1, 2**40))


@st.composite
def descriptions(draw_from):
    seen = draw_from(st.lists(scene_objects, min_size=1, max_size=3, unique=True))
    relation = draw_from(st.sampled_from(RELATIONS)) if len(seen) > 1 else None
    return Description(tuple(seen), relation)


CONFIG = SceneDatasetConfig(object_counts=(2, 3), held_out_fraction=0.125)


def read_files(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "scenes"
    return out, make_scenes(out, 20, 7)


def test_the_dataset_has_cocos_layout(made):
    out, summary = made
    assert summary == {
        "images": 20,
        "captions": 100,
        "train": 16,
        "val": 4,
        "bytes": sum(map(len, read_files(out).values())),
        "seed": 7,
    }
    splits = {}
    for split in ("train", "val"):
        data = json.loads((out / "annotations" / f"captions_{split}2017.json").read_text())
        splits[split] = [image["id"] for image in data["images"]]
        assert all((out / "images" / image["file_name"]).is_file() for image in data["images"])
        told = [each["image_id"] for each in data["annotations"]]
        assert sorted(told) == sorted(splits[split] * CAPTIONS)
        assert all(each["caption"] for each in data["annotations"])
    assert splits["val"] == [5, 10, 15, 20]
    assert sorted(splits["train"] + splits["val"]) == list(range(1, 21))
    assert sorted(f.name for f in (out / "images").iterdir()) == [f"{n:012d}.jpg" for n in range(1, 21)]


def test_caption_ids_are_unique_over_both_splits(made):
    out, _ = made
    ids = [
        each["id"]
        for split in ("train", "val")
        for each in json.loads((out / "annotations" / f"captions_{split}2017.json").read_text())["annotations"]
    ]
    assert sorted(ids) == list(range(1, 101))


def test_the_ground_truth_of_each_scene_is_stored(made):
    out, _ = made
    assert load_scenes(out) == [make_scene(7, number) for number in range(1, 21)]
    first = json.loads((out / "scenes.jsonl").read_text().splitlines()[0])
    assert first["file_name"] == "000000000001.jpg"
    assert set(first["objects"][0]) == {"size", "color", "shape", "box", "rotation"}


def test_the_same_seed_gives_the_same_bytes(made, tmp_path):
    out, _ = made
    make_scenes(tmp_path / "again", 20, 7)
    assert read_files(tmp_path / "again") == read_files(out)


def test_images_do_not_change_between_releases():
    pixels = np.asarray(Image.open(BytesIO(draw_scene(make_scene(7, 1), 7)))).mean(axis=(0, 1))
    assert make_scene(7, 1).description == Description(
        (
            SceneObject("small", "green", "circle"),
            SceneObject("small", "black", "circle"),
            SceneObject("small", "blue", "star"),
        ),
        "above",
    )
    assert np.allclose(pixels, [161.3, 144.8, 169.9], atol=0.5)


def test_another_seed_gives_other_scenes():
    digests = {hashlib.sha256(draw_scene(make_scene(seed, 1), seed)).digest() for seed in range(10)}
    assert len(digests) == 10


def test_a_larger_dataset_starts_with_the_smaller_one(made, tmp_path):
    out, _ = made
    make_scenes(tmp_path / "more", 25, 7)
    images = read_files(out / "images")
    assert images.items() < read_files(tmp_path / "more" / "images").items()
    assert load_scenes(tmp_path / "more")[:20] == load_scenes(out)


def test_an_equal_dataset_is_kept(made):
    out, summary = made
    times = {f: f.stat().st_mtime_ns for f in out.rglob("*")}
    assert make_scenes(out, 20, 7) == summary
    assert {f: f.stat().st_mtime_ns for f in out.rglob("*")} == times


def test_an_empty_directory_is_used(tmp_path):
    assert make_scenes(tmp_path, 5, 0)["images"] == 5


@pytest.mark.parametrize(("count", "seed"), [(20, 8), (21, 7)])
def test_a_directory_with_other_scenes_is_rejected(made, count, seed):
    out, _ = made
    with pytest.raises(UsageError, match="something else"):
        make_scenes(out, count, seed)


def test_a_directory_with_something_else_is_rejected(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        make_scenes(tmp_path, 5, 0)
    assert list(tmp_path.iterdir()) == [tmp_path / "notes.txt"]


@pytest.mark.parametrize(("count", "seed"), [(4, 0), (5, -1)])
def test_arguments_out_of_range_are_rejected(tmp_path, count, seed):
    with pytest.raises(UsageError):
        make_scenes(tmp_path / "out", count, seed)


def test_a_failed_run_leaves_no_files(tmp_path, monkeypatch):
    def disk_full(scene, seed):
        raise OSError("no space left on device")

    monkeypatch.setattr(dataset, "draw_scene", disk_full)
    with pytest.raises(OSError, match="no space"):
        make_scenes(tmp_path / "out", 5, 0)
    assert list(tmp_path.iterdir()) == []


@given(any_scene)
@settings(deadline=None)
def test_each_caption_parses_to_the_description_of_its_scene(scene):
    assert len(set(scene.captions)) == CAPTIONS
    for caption in scene.captions:
        parsed = parse_caption(caption)
        assert parsed.canonical == scene.description.canonical
        assert parsed.matches(scene)


@given(descriptions(), st.integers(0, 1000))
@settings(deadline=None)
def test_written_captions_parse_to_their_description(description, seed):
    for caption in write_captions(description, np.random.default_rng(seed)):
        assert caption[0].isupper()
        assert caption.endswith(".")
        assert parse_caption(caption).canonical == description.canonical
        assert parse_caption(caption.lower().replace(",", "").strip(".")) == parse_caption(caption)


def test_a_scene_has_many_phrasings():
    pair = Description((SceneObject("small", "red", "star"), SceneObject("large", "blue", "heart")), "above")
    random = np.random.default_rng(0)
    assert len({caption for _ in range(200) for caption in write_captions(pair, random)}) > 100


@given(any_scene, st.data())
@settings(deadline=None)
def test_a_changed_description_does_not_match(scene, data):
    truth = scene.description
    index = data.draw(st.integers(0, len(truth.objects) - 1))
    other = data.draw(scene_objects.filter(lambda each: each not in truth.objects))
    changed = tuple(other if i == index else each for i, each in enumerate(truth.objects))
    assert not replace(truth, objects=changed).matches(scene)
    if truth.relation:
        assert not replace(truth, relation=OPPOSITE[truth.relation]).matches(scene)
        assert not Description(truth.objects[:1]).matches(scene)


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "A dog on a sofa.",
        "a red circle",
        "a large red circle is above",
        "a large red circle above a large red",
        "a large red circle and a small blue star",
        "a large red circle is is above a small blue star",
        "a large red circles",
        "<unk> large red circle",
        "a large red circle a large red circle",
    ],
)
def test_a_sentence_outside_the_grammar_has_no_description(caption):
    assert parse_caption(caption) is None


def test_a_relation_and_its_opposite_have_the_same_meaning():
    one = parse_caption("A big red circle is over a little blue star.")
    other = parse_caption("A small blue star below a large red circle")
    assert one == Description((SceneObject("large", "red", "circle"), SceneObject("small", "blue", "star")), "above")
    assert one != other
    assert one == other.canonical


@given(any_scene)
@settings(deadline=None)
def test_objects_are_inside_with_gaps_and_in_their_relation(scene):
    boxes = [placed.box for placed in scene.objects]
    taken = np.zeros((HEIGHT, WIDTH), int)
    for x, y, width, height in boxes:
        assert x >= 4
        assert y >= 4
        assert x + width <= WIDTH - 4
        assert y + height <= HEIGHT - 4
        taken[y : y + height, x : x + width] += 1
    assert taken.max() == 1
    if len(boxes) > 1:
        first, second = scene.objects[:2]
        assert find_relation(first, second) == scene.description.relation
        assert find_relation(second, first) == OPPOSITE[scene.description.relation]


def test_all_object_counts_relations_and_looks_occur():
    many = [make_scene(3, number) for number in range(1, 401)]
    counts = [len(scene.objects) for scene in many]
    assert {n: counts.count(n) > 60 for n in (1, 2, 3)} == {1: True, 2: True, 3: True}
    relations = [scene.description.relation for scene in many]
    assert all(relations.count(each) > 40 for each in RELATIONS)
    scene_objects = [placed.scene_object for scene in many for placed in scene.objects]
    for part, values in (("shape", SHAPES), ("color", COLORS), ("size", SIZES)):
        assert {getattr(each, part) for each in scene_objects} == set(values)


def test_the_image_shows_each_object_in_its_color_and_box():
    for number in range(1, 31):
        scene = make_scene(11, number)
        image = Image.open(BytesIO(draw_scene(scene, 11)))
        assert (image.format, image.size, image.mode) == ("JPEG", (WIDTH, HEIGHT), "RGB")
        pixels = np.asarray(image, float)
        for placed in scene.objects:
            x, y, width, height = placed.box
            area = pixels[y : y + height, x : x + width]
            mask = renderer._render_mask(placed)
            inside = np.median(area[mask == 1], axis=0)
            distance = {color: np.abs(inside - rgb).sum() for color, rgb in renderer._RGB.items()}
            assert min(distance, key=distance.get) == placed.scene_object.color
            assert all(edge.max() > 0 for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
            assert 0.2 < mask.mean() <= 1


def test_large_is_larger_than_small():
    sides = {size: [] for size in SIZES}
    for number in range(1, 101):
        for placed in make_scene(5, number).objects:
            sides[placed.scene_object.size].append(max(placed.box[2:]))
    assert max(sides["small"]) + 20 < min(sides["large"])


def test_scenes_have_the_configured_numbers_of_objects():
    counts = Counter(
        len(make_scene(3, number, SceneDatasetConfig(object_counts=(2, 3))).objects) for number in range(1, 201)
    )
    assert set(counts) == {2, 3}
    assert min(counts.values()) > 40


def test_training_scenes_contain_no_held_out_combination():
    assert len(CONFIG.held_out) == 24
    for number in range(1, 401):
        scene = make_scene(5, number, CONFIG)
        if scene.split != "test":
            assert CONFIG.held_out.isdisjoint(list_combinations(scene.objects))


def test_training_scenes_contain_all_other_combinations_and_color_shape_pairs():
    shown = [list_combinations(make_scene(5, number, CONFIG).objects) for number in range(1, 1001) if number % 5]
    combinations = frozenset().union(*shown)
    assert combinations == {(c, s, r) for c in COLORS for s in SHAPES for r in RELATIONS} - CONFIG.held_out
    assert len({(color, shape) for color, shape, _ in combinations}) == len(COLORS) * len(SHAPES)


def test_a_fifth_of_the_held_out_scenes_describe_held_out_combinations():
    held_out = [make_scene(5, number, CONFIG) for number in range(5, 501, 5)]
    told = [scene for scene in held_out if CONFIG.describes_held_out(scene.number)]
    assert len(told) == len(held_out) / 5
    for scene in held_out:
        parsed, unseen = scene.description, CONFIG.describes_held_out(scene.number)
        (first, second), relation = parsed.objects[:2], parsed.relation
        sides = {
            (first.color, first.shape, relation),
            (second.color, second.shape, OPPOSITE[relation]),
        }
        assert sides.isdisjoint(CONFIG.held_out) != unseen
        assert not unseen or scene.split == "test"


def test_held_out_combinations_give_a_test_split(tmp_path):
    summary = make_scenes(tmp_path / "out", 50, 1, CONFIG)
    assert [summary[split] for split in ("train", "val", "test")] == [40, 2, 8]
    data = json.loads((tmp_path / "out/annotations/captions_test2017.json").read_text())
    assert [image["id"] for image in data["images"]] == [10, 15, 20, 25, 35, 40, 45, 50]
    assert load_scenes(tmp_path / "out") == [make_scene(1, number, CONFIG) for number in range(1, 51)]
    with pytest.raises(UsageError, match="something else"):
        make_scenes(tmp_path / "out", 50, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        {"object_counts": ()},
        {"object_counts": (2, 4)},
        {"object_counts": (2,), "held_out_fraction": 0.3},
        {"held_out_fraction": 0.1},
    ],
)
def test_settings_out_of_range_are_rejected(arguments):
    with pytest.raises(UsageError):
        SceneDatasetConfig(**arguments)


@pytest.fixture
def scene():
    """A small red star left of a large blue heart, above both a black cross."""
    objects = (
        PlacedObject(SceneObject("small", "red", "star"), (20, 150, 40, 40), 0),
        PlacedObject(SceneObject("large", "blue", "heart"), (200, 130, 90, 90), 0),
        PlacedObject(SceneObject("small", "black", "cross"), (20, 20, 40, 40), 0),
    )
    return Scene(1, objects, (), "test")


@pytest.mark.parametrize(
    "caption",
    [
        "A small red star is left of a large blue heart, and there is a small black cross.",
        "Under a little black cross there is a little red star, along with a big blue heart.",
    ],
)
def test_a_caption_with_the_right_objects_and_relation_matches(scene, caption):
    assert parse_caption(caption).matches(scene)


@pytest.mark.parametrize(
    "caption",
    [
        "A small green star is left of a large blue heart, and there is a small black cross.",
        "A small red circle is left of a large blue heart, and there is a small black cross.",
        "A large red star is left of a large blue heart, and there is a small black cross.",
        "A small blue star is left of a large red heart, and there is a small black cross.",
        "A small red star is right of a large blue heart, and there is a small black cross.",
        "A small black cross is above a large blue heart, and there is a small red star.",
        "A small red star is left of a large blue heart.",
        "A small red star is left of a large blue heart, and there is a small red star.",
        "There is a small red star.",
    ],
)
def test_a_caption_with_an_error_does_not_match(scene, caption):
    assert not parse_caption(caption).matches(scene)


def test_a_description_of_several_objects_needs_a_relation(scene):
    assert not Description(tuple(placed.scene_object for placed in scene.objects)).matches(scene)


@pytest.mark.parametrize(("text", "counts"), [("2,3", (2, 3)), ("1", (1,)), ("3, 2", (3, 2))])
def test_object_counts_are_separated_by_commas(tmp_path, text, counts):
    capt.synth_scenes(out=tmp_path / "named", num_images=5, seed=3, objects_per_scene=text)
    make_scenes(tmp_path / "counted", 5, 3, SceneDatasetConfig(object_counts=counts))
    assert read_files(tmp_path / "named") == read_files(tmp_path / "counted")


def test_object_counts_that_are_not_numbers_are_rejected(tmp_path):
    with pytest.raises(UsageError, match="--objects-per-scene: got 'two'"):
        capt.synth_scenes(out=tmp_path / "out", num_images=5, seed=3, objects_per_scene="two")
    assert not list(tmp_path.iterdir())
