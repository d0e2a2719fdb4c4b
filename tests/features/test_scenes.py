"""Synthetic scenes say what they show, and show what they say."""

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
from features.synthetic.scenes import (
    CAPTIONS,
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
    SceneDatasetConfig,
    SceneObject,
    dataset,
    draw_scene,
    find_relation,
    list_combinations,
    load_scenes,
    make_scene,
    make_scenes,
    parse_caption,
    renderer,
    write_captions,
)
from schemas.errors import UsageError

things = st.builds(SceneObject, st.sampled_from(SIZES), st.sampled_from(COLORS), st.sampled_from(SHAPES))
some_scenes = st.builds(make_scene, st.integers(0, 2**63), st.integers(1, 2**40))


@st.composite
def descriptions(draw_from):
    seen = draw_from(st.lists(things, min_size=1, max_size=3, unique=True))
    relation = draw_from(st.sampled_from(RELATIONS)) if len(seen) > 1 else None
    return Description(tuple(seen), relation)


RULES = SceneDatasetConfig(objects=(2, 3), held_out_combinations=0.125)


def contents(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "scenes"
    return out, make_scenes(out, 20, 7)


def test_the_dataset_has_cocos_layout(made):
    out, facts = made
    assert facts == {
        "images": 20,
        "captions": 100,
        "train": 16,
        "val": 4,
        "bytes": sum(map(len, contents(out).values())),
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


def test_the_truth_of_every_scene_is_kept(made):
    out, _ = made
    assert load_scenes(out) == [make_scene(7, number) for number in range(1, 21)]
    first = json.loads((out / "scenes.jsonl").read_text().splitlines()[0])
    assert first["file_name"] == "000000000001.jpg"
    assert set(first["objects"][0]) == {"size", "color", "shape", "box", "turn"}


def test_the_same_seed_gives_the_same_bytes(made, tmp_path):
    out, _ = made
    make_scenes(tmp_path / "again", 20, 7)
    assert contents(tmp_path / "again") == contents(out)


def test_pictures_stay_the_same_from_release_to_release():
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


def test_a_larger_dataset_begins_with_the_smaller(made, tmp_path):
    out, _ = made
    make_scenes(tmp_path / "more", 25, 7)
    images = contents(out / "images")
    assert images.items() < contents(tmp_path / "more" / "images").items()
    assert load_scenes(tmp_path / "more")[:20] == load_scenes(out)


def test_a_finished_folder_is_left_as_it_is(made):
    out, facts = made
    times = {f: f.stat().st_mtime_ns for f in out.rglob("*")}
    assert make_scenes(out, 20, 7) == facts
    assert {f: f.stat().st_mtime_ns for f in out.rglob("*")} == times


def test_an_empty_folder_is_filled(tmp_path):
    assert make_scenes(tmp_path, 5, 0)["images"] == 5


@pytest.mark.parametrize(("count", "seed"), [(20, 8), (21, 7)])
def test_a_folder_of_other_scenes_is_refused(made, count, seed):
    out, _ = made
    with pytest.raises(UsageError, match="something else"):
        make_scenes(out, count, seed)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="something else"):
        make_scenes(tmp_path, 5, 0)
    assert list(tmp_path.iterdir()) == [tmp_path / "notes.txt"]


@pytest.mark.parametrize(("count", "seed"), [(4, 0), (5, -1)])
def test_arguments_out_of_range_are_refused(tmp_path, count, seed):
    with pytest.raises(UsageError):
        make_scenes(tmp_path / "out", count, seed)


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def disk_full(scene, seed):
        raise OSError("no space left on device")

    monkeypatch.setattr(dataset, "draw_scene", disk_full)
    with pytest.raises(OSError, match="no space"):
        make_scenes(tmp_path / "out", 5, 0)
    assert list(tmp_path.iterdir()) == []


@given(some_scenes)
@settings(deadline=None)
def test_every_caption_parses_back_to_its_scene(scene):
    assert len(set(scene.captions)) == CAPTIONS
    for caption in scene.captions:
        claim = parse_caption(caption)
        assert claim.canonical == scene.description.canonical
        assert claim.matches(scene)


@given(descriptions(), st.integers(0, 1000))
@settings(deadline=None)
def test_whatever_is_said_parses_back(description, seed):
    for caption in write_captions(description, np.random.default_rng(seed)):
        assert caption[0].isupper()
        assert caption.endswith(".")
        assert parse_caption(caption).canonical == description.canonical
        assert parse_caption(caption.lower().replace(",", "").strip(".")) == parse_caption(caption)


def test_a_scene_can_be_said_in_many_ways():
    pair = Description((SceneObject("small", "red", "star"), SceneObject("large", "blue", "heart")), "above")
    random = np.random.default_rng(0)
    assert len({caption for _ in range(200) for caption in write_captions(pair, random)}) > 100


@given(some_scenes, st.data())
@settings(deadline=None)
def test_a_false_caption_does_not_hold(scene, data):
    truth = scene.description
    place = data.draw(st.integers(0, len(truth.things) - 1))
    other = data.draw(things.filter(lambda thing: thing not in truth.things))
    changed = tuple(other if i == place else thing for i, thing in enumerate(truth.things))
    assert not replace(truth, things=changed).matches(scene)
    if truth.relation:
        assert not replace(truth, relation=OPPOSITE[truth.relation]).matches(scene)
        assert not Description(truth.things[:1]).matches(scene)


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
def test_what_the_grammar_cannot_say_is_no_claim(caption):
    assert parse_caption(caption) is None


def test_a_relation_reads_the_same_from_either_side():
    one = parse_caption("A big red circle is over a little blue star.")
    other = parse_caption("A small blue star below a large red circle")
    assert one == Description((SceneObject("large", "red", "circle"), SceneObject("small", "blue", "star")), "above")
    assert one != other
    assert one == other.canonical


@given(some_scenes)
@settings(deadline=None)
def test_objects_lie_inside_apart_and_in_their_relation(scene):
    boxes = [drawn.box for drawn in scene.objects]
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


def test_all_sorts_of_scenes_occur():
    many = [make_scene(3, number) for number in range(1, 401)]
    counts = [len(scene.objects) for scene in many]
    assert {n: counts.count(n) > 60 for n in (1, 2, 3)} == {1: True, 2: True, 3: True}
    relations = [scene.description.relation for scene in many]
    assert all(relations.count(each) > 40 for each in RELATIONS)
    drawn = [drawn.thing for scene in many for drawn in scene.objects]
    for part, values in (("shape", SHAPES), ("color", COLORS), ("size", SIZES)):
        assert {getattr(thing, part) for thing in drawn} == set(values)


def test_the_picture_shows_each_object_in_its_colour_and_box():
    for number in range(1, 31):
        scene = make_scene(11, number)
        image = Image.open(BytesIO(draw_scene(scene, 11)))
        assert (image.format, image.size, image.mode) == ("JPEG", (WIDTH, HEIGHT), "RGB")
        pixels = np.asarray(image, float)
        for drawn in scene.objects:
            x, y, width, height = drawn.box
            area = pixels[y : y + height, x : x + width]
            cover = renderer._cover(drawn)
            inside = np.median(area[cover == 1], axis=0)
            distance = {color: np.abs(inside - paint).sum() for color, paint in renderer._PAINT.items()}
            assert min(distance, key=distance.get) == drawn.thing.color
            assert all(edge.max() > 0 for edge in (cover[0], cover[-1], cover[:, 0], cover[:, -1]))
            assert 0.2 < cover.mean() <= 1


def test_large_is_larger_than_small():
    sides = {size: [] for size in SIZES}
    for number in range(1, 101):
        for drawn in make_scene(5, number).objects:
            sides[drawn.thing.size].append(max(drawn.box[2:]))
    assert max(sides["small"]) + 20 < min(sides["large"])


def test_objects_are_as_many_as_the_rules_say():
    counts = Counter(len(make_scene(3, number, SceneDatasetConfig(objects=(2, 3))).objects) for number in range(1, 201))
    assert set(counts) == {2, 3}
    assert min(counts.values()) > 40


def test_training_never_shows_an_unseen_combination():
    assert len(RULES.unseen) == 24
    for number in range(1, 401):
        scene = make_scene(5, number, RULES)
        if scene.split != "test":
            assert RULES.unseen.isdisjoint(list_combinations(scene.objects))


def test_training_shows_all_other_combinations_and_every_pair_of_colour_and_shape():
    shown = [list_combinations(make_scene(5, number, RULES).objects) for number in range(1, 1001) if number % 5]
    combinations = frozenset().union(*shown)
    assert combinations == {(c, s, r) for c in COLORS for s in SHAPES for r in RELATIONS} - RULES.unseen
    assert len({(color, shape) for color, shape, _ in combinations}) == len(COLORS) * len(SHAPES)


def test_a_fifth_of_the_held_out_scenes_tell_unseen_combinations():
    held_out = [make_scene(5, number, RULES) for number in range(5, 501, 5)]
    told = [scene for scene in held_out if RULES.describes_held_out(scene.number)]
    assert len(told) == len(held_out) / 5
    for scene in held_out:
        claim, unseen = scene.description, RULES.describes_held_out(scene.number)
        (first, second), relation = claim.things[:2], claim.relation
        sides = {
            (first.color, first.shape, relation),
            (second.color, second.shape, OPPOSITE[relation]),
        }
        assert sides.isdisjoint(RULES.unseen) != unseen
        assert not unseen or scene.split == "test"


def test_unseen_combinations_make_a_test_split(tmp_path):
    facts = make_scenes(tmp_path / "out", 50, 1, RULES)
    assert [facts[split] for split in ("train", "val", "test")] == [40, 2, 8]
    data = json.loads((tmp_path / "out/annotations/captions_test2017.json").read_text())
    assert [image["id"] for image in data["images"]] == [10, 15, 20, 25, 35, 40, 45, 50]
    assert load_scenes(tmp_path / "out") == [make_scene(1, number, RULES) for number in range(1, 51)]
    with pytest.raises(UsageError, match="something else"):
        make_scenes(tmp_path / "out", 50, 1)


@pytest.mark.parametrize(
    "rules",
    [
        {"objects": ()},
        {"objects": (2, 4)},
        {"objects": (2,), "held_out_combinations": 0.3},
        {"held_out_combinations": 0.1},
    ],
)
def test_rules_out_of_range_are_refused(rules):
    with pytest.raises(UsageError):
        SceneDatasetConfig(**rules)


@pytest.fixture
def shown():
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
def test_a_caption_that_names_all_objects_and_a_relation_rightly_is_true(shown, caption):
    assert parse_caption(caption).matches(shown)


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
def test_a_caption_with_a_fault_is_false(shown, caption):
    assert not parse_caption(caption).matches(shown)


def test_a_claim_about_several_objects_needs_a_relation(shown):
    assert not Description(tuple(drawn.thing for drawn in shown.objects)).matches(shown)


@pytest.mark.parametrize(("text", "counts"), [("2,3", (2, 3)), ("1", (1,)), ("3, 2", (3, 2))])
def test_counts_of_objects_are_named_with_commas_between(tmp_path, text, counts):
    capt.synth_scenes(out=tmp_path / "named", num_images=5, seed=3, objects_per_scene=text)
    make_scenes(tmp_path / "counted", 5, 3, SceneDatasetConfig(objects=counts))
    assert contents(tmp_path / "named") == contents(tmp_path / "counted")


def test_counts_of_objects_that_are_no_numbers_are_wrong_usage(tmp_path):
    with pytest.raises(
        UsageError, match="--objects-per-scene: got 'two' \\(counts with commas between, such as 2,3\\)"
    ):
        capt.synth_scenes(out=tmp_path / "out", num_images=5, seed=3, objects_per_scene="two")
    assert not list(tmp_path.iterdir())
