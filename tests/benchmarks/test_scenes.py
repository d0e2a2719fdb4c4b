"""The scenes benchmark separates correct captions from wrong ones, and runs from scenes to its table."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from features.synthetic.scenes.scene import PlacedObject, Scene, SceneObject

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TRUE = "a small red star is left of a large blue heart and there is a small black cross"


@pytest.fixture
def program(monkeypatch):
    """Imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def shown():
    objects = (
        PlacedObject(SceneObject("small", "red", "star"), (20, 150, 40, 40), 0),
        PlacedObject(SceneObject("large", "blue", "heart"), (200, 130, 90, 90), 0),
        PlacedObject(SceneObject("small", "black", "cross"), (20, 20, 40, 40), 0),
    )
    return Scene(1, objects, (), "test")


@pytest.mark.parametrize(
    ("caption", "fault"),
    [
        (TRUE, None),
        (f"{TRUE} cross", "not in the grammar"),
        ("", "not in the grammar"),
        ("a small red star is left of a large blue heart", "number of objects"),
        (TRUE.replace("red", "green"), "colors"),
        (TRUE.replace("heart", "circle"), "shapes"),
        (TRUE.replace("red", "x").replace("blue", "red").replace("x", "blue"), "color-shape combinations"),
        (TRUE.replace("large", "little"), "sizes"),
        (TRUE.replace("left of", "above"), "relation"),
    ],
)
def test_the_first_error_of_a_caption_is_reported(program, shown, caption, fault):
    assert program("scene_scores").find_error(caption, shown) == fault


def test_attention_is_compared_with_the_boxes_of_the_named_objects(program, shown):
    words = TRUE.replace("black", "white").split()
    attention = np.full((len(words), 48), 0.01)
    attention[words.index("red"), 0] = 0.5
    attention[words.index("star"), 4 * 8 + 1] = 0.5  # the middle of row 4, column 1 lies in the star's box
    attention[words.index("blue"), 4 * 8 + 6] = 0.5
    attention[words.index("heart"), 0] = 0.5
    looks = program("scene_scores").measure_attention(words, attention, shown, 6, 8)
    assert [(color, shape) for color, shape, _ in looks] == [(False, True), (True, False)]
    assert [chance for *_, chance in looks] == pytest.approx([1600 / 76800, 8100 / 76800])


def test_each_model_has_valid_committed_hyperparameters(program):
    from trainer.config import parse_options
    from trainer.models.model_specs import MODELS

    benchmark = program("scenes")
    for name, spec in MODELS.items():
        parse_options(spec.config, benchmark.load_options(name))


@pytest.mark.slow
def test_the_benchmark_runs_from_scenes_to_its_table_and_reuses_results(program, tmp_path):
    benchmark = program("scenes")
    bench = benchmark.Bench(tmp_path / "out", scenes=50, network_scenes=20, network_epochs=1)
    sizes = {
        "soft_attention": {"embedding_dim": 8, "units": 8, "attention_dim": 8, "projection_dim": 8, "output_dim": 8},
        "par_inject": {"embedding_dim": 8, "units": 8},
    }
    options = {
        name: {**chosen, "epochs": 1, "batch_size": 16, "num_sample_captions": 0} for name, chosen in sizes.items()
    }
    figures = benchmark.measure(bench, list(options), options.__getitem__)
    for name, one in figures["models"].items():
        assert (one["scenes"], one["unseen_scenes"]) == (8, 2)
        assert 0 <= one["true"] <= 1
        assert set(one["true_of_objects"]) == {2, 3}
        assert sum(one["faults"].values()) == round((1 - one["true"]) * 8)
        assert set(one["shuffled"]) >= {"true", "bleu_4", "cider_d"}
        assert one["training"]["cpu_seconds"] > 0
        assert f"| `{name}` |" in benchmark.table(figures)
    stamps = {path: path.stat().st_mtime_ns for path in bench.out.glob("runs/*/checkpoints/*")}
    again = benchmark.measure(bench, list(options), options.__getitem__)
    assert {path: path.stat().st_mtime_ns for path in bench.out.glob("runs/*/checkpoints/*")} == stamps
    assert again["models"]["par_inject"]["faults"] == figures["models"]["par_inject"]["faults"]
