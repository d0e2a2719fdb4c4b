"""The page of the demo opens with examples, shows all values, and contains no code."""

from dataclasses import replace

import pytest

from tests.workflows.test_example_pages import NASTY, Page, assert_inert, encoded
from workflows.demo.page import CaptionedImage, DemoPart, Measure, ReadLabel, WordMap, build_demo_page
from workflows.demo.steps import Step

GOOD = CaptionedImage(
    image=encoded("JPEG"),
    caption="a red star",
    references=("A red star.", "A star."),
    maps=(WordMap("red star", encoded(size=(80, 60))),),
    attention=encoded(size=(500, 100)),
    is_correct=True,
)
BAD = replace(GOOD, caption="a blue star", is_correct=False, error="wrong color")
SCENES = DemoPart(
    summary={},
    headline="95% of the captions are true.",
    title="Captions of unseen scenes",
    lead="Each map shows where the model looks.",
    values={"true captions": "95% (chance 0%)"},
    loss_plot=encoded(size=(700, 400)),
    measures=(Measure("captions that are true", 0.95, 0.012, 1200),),
    good=(GOOD,),
    bad=BAD,
    more=(GOOD,),
)
CAPTCHAS = DemoPart(
    summary={},
    headline="99% of the CAPTCHAs are read.",
    title="Unseen CAPTCHAs",
    lead="",
    values={"CAPTCHAs read": "99%"},
    loss_plot=encoded(size=(900, 400)),
    measures=(Measure("CAPTCHAs that are read", 0.99, None, 200),),
    labels=(ReadLabel(encoded(), "cat", "cat"), ReadLabel(encoded(), "cot", "cat")),
)
STEPS = (Step("generate scenes", "400 scenes", 2.24), Step("train", "12 epochs", 131.4))


def build(*parts: DemoPart, notices: tuple[str, ...] = ()) -> Page:
    page = Page(build_demo_page("capt demo", notices, parts, STEPS, {"time": "2 min 14 s"}))
    assert_inert(page)
    return page


def test_the_page_begins_with_good_examples_a_bad_one_and_captchas_then_steps_and_figures() -> None:
    text = build(SCENES, CAPTCHAS).text
    in_order = [
        "95% of the captions are true. 99% of the CAPTCHAs are read.",
        "true captions 95% (chance 0%)",
        "CAPTCHAs read 99%",
        "time 2 min 14 s",
        "Captions of unseen scenes",
        "✓ true a red star red star",
        "A caption that is not true caption ✗ not true: wrong color a blue star",
        "references A red star. A star. red star",
        "Unseen CAPTCHAs",
        "✓ cat",
        "✗ cot instead of cat",
        "generate scenes 400 scenes 2.2 s train 12 epochs 2 min 11 s total 2 min 14 s",
        "Learning curves",
        "captions that are true 95.0% 1.2% 1,200",
        "CAPTCHAs that are read 99.0% – 200",
        "More captions",
    ]
    positions = [text.find(shown) for shown in in_order]
    assert -1 not in positions, in_order[positions.index(-1)]
    assert positions == sorted(positions)


def test_each_part_has_its_pictures() -> None:
    sizes = [picture.size for picture in build(SCENES, CAPTCHAS).pictures]
    assert sizes[:4] == [(400, 300), (80, 60)] * 2, "image and map, bad image and map"
    assert {(700, 400), (900, 400), (500, 100)} <= set(sizes)


def test_scores_of_published_metrics_are_percentages() -> None:
    part = replace(SCENES, measures=(), scores={"CIDEr-D": 0.457})
    assert "metric × 100 CIDEr-D 45.7" in build(part).text


def test_an_example_without_verdict_and_maps_shows_its_caption() -> None:
    part = replace(SCENES, good=(replace(GOOD, is_correct=None, maps=()),), bad=None, more=())
    text = build(part, notices=("Random weights are used.",)).text
    assert "Random weights are used." in text
    assert "true a red star" not in text
    assert "a red star" in text


@pytest.mark.parametrize("part", [replace(SCENES, good=(), bad=None, more=(), measures=(), lead="")])
def test_a_part_without_examples_has_no_heading(part: DemoPart) -> None:
    page = build(part)
    assert "More captions" not in page.text
    assert "Figures" not in page.text


def test_no_text_becomes_markup() -> None:
    image = CaptionedImage(encoded(), NASTY, (NASTY,), (WordMap(NASTY, encoded()),), encoded(), False, NASTY)
    part = DemoPart(
        summary={},
        headline=NASTY,
        title=NASTY,
        lead=NASTY,
        values={NASTY: NASTY},
        loss_plot=encoded(),
        measures=(Measure(NASTY, 1.0, None, 1),),
        good=(image,),
        bad=image,
        labels=(ReadLabel(encoded(), NASTY, NASTY),),
    )
    text = build_demo_page(NASTY, (NASTY,), (part,), (Step(NASTY, NASTY, 1),), {NASTY: NASTY})
    page = Page(text)
    assert_inert(page)
    assert page.texts.count(NASTY) >= 10
    assert "<script" not in text
