"""CAPTCHA datasets have the published layout, depend only on their settings, and are written atomically."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

import capt
from features.synthetic.captchas.dataset import NAME_PATTERN, make_captchas
from features.synthetic.captchas.fonts import find_default_fonts
from features.synthetic.captchas.labels import load_default_words
from features.synthetic.captchas.renderer import choose_label, draw_captcha, encode_png, make_generator
from features.synthetic.captchas.style import CaptchaStyle
from schemas.errors import UsageError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset of 14 CAPTCHAs of seed 5."""
    out = tmp_path_factory.mktemp("made") / "out"
    capt.synth_captcha(out=out, num_images=14, seed=5)
    return out


def read_files(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_layout_is_the_published_one_with_all_labels_beside_it(made):
    style = CaptchaStyle(load_default_words(), find_default_fonts())
    captchas = [draw_captcha(5, number, style) for number in range(14)]
    lines = [f"a{number} {label}\n" for number, (_, label) in enumerate(captchas)]
    files = read_files(made)
    assert files.pop("truth.txt").decode() == "".join(lines)
    assert files.pop("words_captcha/spec_train_val.txt").decode() == "".join(lines[:12])
    assert files.pop("made.json")
    assert files == {f"words_captcha/a{number}.png": encode_png(image) for number, (image, _) in enumerate(captchas)}


def test_a_larger_dataset_starts_with_the_smaller_one_and_has_the_given_number_of_labels(made, tmp_path):
    summary = capt.synth_captcha(out=tmp_path / "few", num_images=4, seed=5, num_labelled=1)
    assert (summary["images"], summary["labelled"], summary["words"], summary["fonts"]) == (4, 1, 2500, 4)
    few, many = read_files(tmp_path / "few"), read_files(made)
    assert all(few[f"words_captcha/a{number}.png"] == many[f"words_captcha/a{number}.png"] for number in range(4))
    assert few["words_captcha/spec_train_val.txt"] == many["truth.txt"].splitlines(keepends=True)[0]


def test_an_equal_dataset_is_kept(made):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
    capt.synth_captcha(out=made, num_images=14, seed=5)
    assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before


@pytest.mark.parametrize("other", [{"num_images": 13}, {"seed": 6}, {"num_labelled": 14}])
def test_a_directory_with_another_dataset_is_rejected(made, other):
    with pytest.raises(UsageError, match="other contents than"):
        capt.synth_captcha(out=made, **{"num_images": 14, "seed": 5, **other})


def test_other_words_are_another_dataset(made):
    with pytest.raises(UsageError, match="other contents than"):
        make_captchas(CaptchaStyle(("null",), find_default_fonts()), made, 14, 5)


def test_another_difficulty_is_another_dataset(made):
    for other in ({"num_strokes": "0,4"}, {"max_rotation": 8}, {"width": 320}):
        with pytest.raises(UsageError, match="other contents than"):
            capt.synth_captcha(out=made, num_images=14, seed=5, **other)
    assert capt.synth_captcha(out=made, num_images=14, seed=5, num_strokes="8,20", max_rotation=24)["images"] == 14


def test_the_words_and_fonts_of_the_user_are_used(tmp_path):
    (tmp_path / "words.txt").write_text("null\nwww\n")
    (tmp_path / "fonts").mkdir()
    (tmp_path / "fonts" / "one.ttf").symlink_to(find_default_fonts()[1])
    summary = capt.synth_captcha(
        out=tmp_path / "out", num_images=6, seed=1, word_list=tmp_path / "words.txt", font_dir=tmp_path / "fonts"
    )
    assert (summary["words"], summary["fonts"]) == (2, 1)
    words = [line.split()[1] for line in (tmp_path / "out" / "truth.txt").read_text().splitlines()]
    assert set(words) == {"null", "www"}


def test_images_are_named_by_their_label_and_names_differ_where_case_is_ignored(tmp_path):
    small = {"charset": "0Aa", "lengths": "1,2", "width": 40, "height": 30, "num_strokes": "0,1", "layout": "names"}
    summary = capt.synth_captcha(out=tmp_path / "out", num_images=20, seed=2, **small)
    assert (summary["labelled"], summary["words"], summary["characters"], summary["skipped_fonts"]) == (20, 0, 3, 0)
    names = sorted(path.stem for path in (tmp_path / "out" / "images").iterdir())
    labels = [re.fullmatch(NAME_PATTERN, name)["label"] for name in names]
    style = CaptchaStyle((), find_default_fonts(), characters=("0", "A", "a"), lengths=(1, 2), width=40, height=30)
    assert sorted(labels) == sorted(choose_label(style, make_generator(2, number)) for number in range(20))
    assert {"0", "0.2"} <= set(names)
    assert len({name.casefold() for name in names}) == 20
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"images", "made.json"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"charset": "a.b", "layout": "names"}, "--layout names: a file name of a label cannot contain '.'"),
        ({"charset": "漢", "lengths": "1,100", "layout": "names"}, "no font has all characters"),
        ({"num_labelled": 3, "layout": "names"}, "--num-labelled: the option is not used with this layout"),
        ({"charset": "ab", "word_list": "words.txt"}, "--charset: labels are words or random characters"),
        ({"background": "plain", "background_dir": "images"}, "--background: the images are the backgrounds"),
        ({"charset": "ab", "lengths": "0,2"}, "--lengths: got 0,2"),
        ({"lengths": "9,9"}, "--lengths: no word has 9 to 9 characters"),
        ({"charset": "W", "lengths": "40,40", "width": 160, "height": 16}, "does not fit into 160×16 pixels"),
    ],
)
def test_options_that_do_not_fit_are_one_line(tmp_path, wrong, message):
    with pytest.raises(UsageError, match=message):
        capt.synth_captcha(out=tmp_path / "out", num_images=1, **wrong)
    assert not (tmp_path / "out").exists()


def test_a_label_too_long_for_a_file_name_is_an_error(tmp_path):
    style = CaptchaStyle((), find_default_fonts(), characters=("漢",), lengths=(1, 100))
    with pytest.raises(UsageError, match="a label may have 300 bytes, and a file name at most 240"):
        make_captchas(style, tmp_path / "out", 1, 1, layout="names")


def test_other_backgrounds_are_another_dataset(tmp_path):
    (tmp_path / "images").mkdir()
    options = {"out": tmp_path / "out", "num_images": 1, "background_dir": tmp_path / "images"}
    for color in ("white", "silver"):
        Image.new("RGB", (30, 30), color).save(tmp_path / "images" / "a.png")
        if color == "white":
            capt.synth_captcha(**options)
    with pytest.raises(UsageError, match="other contents than"):
        capt.synth_captcha(**options)


@pytest.mark.parametrize("wrong", [{"num_images": 0}, {"seed": -1}, {"num_labelled": 15}, {"num_labelled": -1}])
def test_arguments_out_of_range_are_rejected(tmp_path, wrong):
    with pytest.raises(UsageError):
        capt.synth_captcha(out=tmp_path / "out", **{"num_images": 14, "seed": 5, **wrong})
    assert not (tmp_path / "out").exists()


def test_a_killed_run_leaves_no_dataset(tmp_path):
    program = f"import capt; capt.synth_captcha(out={str(tmp_path / 'out')!r}, num_images=5000, seed=1)"
    run = subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.*/out/words_captcha/a*.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert run.poll() is None
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert not (tmp_path / "out").exists()
    assert capt.synth_captcha(out=tmp_path / "out", num_images=2, seed=1)["images"] == 2


def test_a_program_that_new_processes_would_run_again_learns_how_to_call_it(tmp_path):
    (tmp_path / "program.py").write_text('import capt\n\ncapt.synth_captcha("out", num_images=100)\n')
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "program.py"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    ending = "schemas.errors.CaptError: a process that draws images ended early"
    [line] = [line for line in run.stderr.splitlines() if line.startswith(ending)]
    assert 'below `if __name__ == "__main__":`' in line
    assert "leaked" not in run.stderr
    assert not (tmp_path / "out").exists()
