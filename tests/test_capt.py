"""The command line: quick help, one-line errors, exit statuses, JSON on the last line, options from YAML."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands import CommandServer
from tests.conftest import noise_image

PIXELS = ["--extractor", "pixels", "--height", "32", "--width", "32"]
NETWORK = ["--extractor", "mobilenet_v3_small", "--weights", "random:7"]


def run_alone(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process that has imported nothing."""
    return subprocess.run(
        [sys.executable, "-m", "capt", *arguments], capture_output=True, text=True, timeout=300, check=False
    )


def features(store: Path, images: Path, *more: str) -> list[str]:
    return [
        *("prepare", "features", "--store", str(store), "--dataset-type", "folder", "--images", str(images)),
        *PIXELS,
        *more,
    ]


def test_help_answers_within_half_a_second() -> None:
    """Processor time, for other tests run beside this one."""
    for _ in range(5):
        start = os.times()
        assert run_alone("--help").returncode == 0
        end = os.times()
        seconds = end.children_user + end.children_system - start.children_user - start.children_system
        if seconds < 0.5:
            break
    assert seconds < 0.5


def test_help_imports_nothing_heavy() -> None:
    heavy = {"tensorflow", "keras", "apache_beam", "numpy", "pyarrow", "PIL", "matplotlib"}
    program = (
        "import sys, capt\n"
        "try: capt.application()(['prepare', 'features', '--help'])\n"
        f"except SystemExit: print(sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.fixture(scope="module")
def prepared(
    commands: CommandServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[subprocess.CompletedProcess[str], Path]:
    """What a command that worked said, and its log file."""
    root = tmp_path_factory.mktemp("prepared")
    (root / "images").mkdir()
    for number in range(3):
        noise_image(number).save(root / "images" / f"{number}.jpg")
    command = features(root / "store", root / "images", "--json", "--log-file", str(root / "log.txt"))
    return commands.capt(*command), root / "log.txt"


def test_json_is_the_last_line_and_nothing_else_is_on_standard_output(
    prepared: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    done, _ = prepared
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    names = {"input", "ok", "cached", "duplicate", "failed", "unannotated", "shards", "bytes", "seconds", "fingerprint"}
    assert names <= set(figures)
    assert (figures["input"], figures["ok"]) == (3, 3)
    assert done.stdout.count("\n") == 1


@pytest.mark.slow
def test_the_libraries_write_nothing_to_standard_error_and_output(tmp_path: Path, photos: Any) -> None:
    done = run_alone(*features(tmp_path / "store", photos(2), *NETWORK, "--quiet", "--json"))
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_wrong_usage_ends_with_exit_code_2_and_one_line(commands: CommandServer, tmp_path: Path, photos: Any) -> None:
    done = commands.capt(*features(tmp_path / "store", photos(1), "--extractor", "nothing"))
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len([line for line in lines if line.startswith("capt: --extractor: unknown extractor 'nothing'")]) == 1
    assert "Traceback" not in done.stderr


def test_debug_adds_the_traceback(commands: CommandServer, tmp_path: Path, photos: Any) -> None:
    done = commands.capt(*features(tmp_path / "store", photos(1), "--extractor", "nothing", "--debug"))
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_too_many_failures_end_with_exit_code_3_and_figures(
    commands: CommandServer, tmp_path: Path, photos: Any
) -> None:
    images = photos(2)
    (images / "bad.jpg").write_text("no image")
    done = commands.capt(*features(tmp_path / "store", images, "--json"))
    assert done.returncode == 3
    assert json.loads(done.stdout.splitlines()[-1])["failed"] == 1
    assert "1 of 3 records failed (1 unsupported)" in done.stderr


def test_a_failure_ends_with_exit_code_1(commands: CommandServer, tmp_path: Path, photos: Any) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "something").write_text("else")
    done = commands.capt(*features(tmp_path / "store", photos(1)))
    assert done.returncode == 1
    assert "not a capt store" in done.stderr


def test_a_package_that_is_missing_is_named_in_one_line() -> None:
    program = (
        "import sys; sys.modules['pyarrow'] = None; sys.argv = ['capt', 'store', 'ls', '.']; import capt; capt.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "'pyarrow'" in line


def test_a_path_that_cannot_be_written_is_one_line(commands: CommandServer) -> None:
    done = commands.capt("synth", "scenes", "/sys/capt", "--num-images", "5", "--seed", "0")
    assert done.returncode == 1
    assert re.fullmatch(
        r"capt: /sys/\S+: [A-Z][a-z -]+\. Check its permissions, or choose another path\.\n", done.stderr
    )


def test_options_of_scenes_are_those_of_the_command_line(commands: CommandServer, tmp_path: Path) -> None:
    out = tmp_path / "scenes"
    done = commands.capt(
        "synth",
        "scenes",
        str(out),
        "--num-images",
        "25",
        "--objects-per-scene",
        "2,3",
        "--held-out-fraction",
        "0.125",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["train"], made["val"], made["test"]) == (20, 1, 4)
    shown = [len(json.loads(line)["objects"]) for line in (out / "scenes.jsonl").read_text().splitlines()]
    assert set(shown) == {2, 3}


def test_options_come_from_a_yaml_file_and_the_command_line_wins(
    commands: CommandServer, tmp_path: Path, photos: Any
) -> None:
    config = tmp_path / "prepare.yaml"
    config.write_text(
        f"store: {tmp_path / 'store'}\ndataset_type: folder\nimages: [{photos(3)}]\n"
        "extractor: pixels\nheight: 32\nwidth: 32\nlimit-images: 1\n"
    )
    done = commands.capt("prepare", "features", "--config", str(config), "--limit-images", "2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["input"] == 2


def test_an_unknown_key_in_the_yaml_file_is_refused_by_name(commands: CommandServer, tmp_path: Path) -> None:
    config = tmp_path / "prepare.yaml"
    config.write_text("stoer: x\n")
    done = commands.capt("prepare", "features", "--config", str(config))
    assert done.returncode == 2
    assert "unknown option 'stoer'" in done.stderr


@pytest.mark.parametrize("task", ["captioner", "captcha"])
def test_settings_of_training_come_from_a_yaml_file_and_unknown_ones_are_refused_by_name(
    commands: CommandServer, tmp_path: Path, task: str
) -> None:
    config = tmp_path / "train.yaml"
    config.write_text(f"store: {tmp_path / 'none'}\nlearning_rate: 0.1\n")
    done = commands.capt("train", task, "--run-dir", str(tmp_path / "run"), "--config", str(config))
    assert "the store does not exist" in done.stderr
    config.write_text(f"store: {tmp_path / 'none'}\nlearning_rat: 0.1\n")
    done = commands.capt("train", task, "--run-dir", str(tmp_path / "run"), "--config", str(config))
    assert done.returncode == 2
    assert "unknown option 'learning_rat'" in done.stderr


def test_what_is_wrong_with_a_command_is_reported_before_keras_is_imported() -> None:
    modules = (
        *(
            "pipelines.prepare_features",
            "pipelines.prepare_captions",
            "trainer.tasks.captioning",
            "trainer.tasks.captcha",
            "trainer.training.train",
        ),
        *(
            "trainer.inference.caption_images",
            "trainer.inference.predict_captions",
            "trainer.inference.recognize_images",
            "trainer.inference.predict_captcha",
        ),
        *("trainer.evaluation.evaluate", "workflows.retraining.pipeline", "workflows.experiments.run"),
        "workflows.experiments.report",
    )
    program = (
        "import importlib, sys\n"
        f"for module in {modules!r}:\n"
        "    importlib.import_module(module)\n"
        "    assert not {'keras', 'tensorflow'} & {*sys.modules}, module"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_option_that_beam_does_not_know_is_wrong_usage(commands: CommandServer, tmp_path: Path, photos: Any) -> None:
    done = commands.capt(*features(tmp_path / "store", photos(1), "--", "--no_such_beam_option=1"))
    assert done.returncode == 2
    assert "no_such_beam_option" in done.stderr


def test_the_log_goes_to_a_file_too(prepared: tuple[subprocess.CompletedProcess[str], Path]) -> None:
    _, log = prepared
    assert "fingerprint" in log.read_text()


@pytest.mark.parametrize("command", [["prepare"], ["store"], ["train"], ["experiment"], []])
def test_a_group_without_a_command_shows_its_help(commands: CommandServer, command: list[str]) -> None:
    done = commands.capt(*command)
    assert "Usage" in done.stdout + done.stderr
