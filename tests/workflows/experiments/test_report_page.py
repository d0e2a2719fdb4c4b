"""Parts of the page of an experiment."""

from trainer.task_registry import find_task
from workflows.experiments.comparison import ComparedImage
from workflows.experiments.report_page import _build_image


def test_a_label_with_spaces_is_compared_character_by_character() -> None:
    predictions = {"right": "אב cd", "wrong": "אב cx", "empty": ""}
    image = ComparedImage("a.png", None, ("אב cd",), predictions)
    page = str(_build_image(image, find_task("captcha")))
    assert '<span dir="auto">אב cd</span>' in page
    assert '<span dir="auto">אב c<span class="wrong">x</span></span>' in page
    assert page.count("(empty)") == 1
