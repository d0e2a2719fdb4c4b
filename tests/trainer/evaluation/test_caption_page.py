from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from features.images.resize import Resizer
from schemas.table_config import FeatureTableConfig
from tests.workflows.test_example_pages import NASTY, Page, assert_inert
from trainer.evaluation.caption_page import CaptionPrediction, predictions_page
from trainer.reports.plots import draw_attention_maps
from trainer.runs.captioner_run import Caption

FITTING = Resizer.from_table_config(
    FeatureTableConfig(
        extractor="inception_v3",
        weights="random:1",
        layer="mixed10",
        pooling="none",
        height=64,
        width=64,
        precision="float32",
        dtype="float16",
    )
)


def picture(size=(120, 90)):
    data = BytesIO()
    Image.new("RGB", size, (20, 150, 40)).save(data, "PNG")
    return data.getvalue()


def prediction(**changes):
    given = {
        "name": "42",
        "image": picture(),
        "words": ("a", "red", "square"),
        "references": ("A green square.", "a square"),
        "scores": {"CIDEr-D": 1.25},
    }
    return CaptionPrediction(**(given | changes))


def shown(best=(), worst=(), notices=(), figures=None):
    sections = {"Best captions": best, "Worst captions": worst}
    return Page(predictions_page("first run", notices, figures or {}, sections))


def test_a_page_shows_the_best_and_the_worst_with_the_references():
    page = shown([prediction()], [prediction(name="7", words=("a", "tree"))], ["scored on val"], {"CIDEr-D": "12.3"})
    text = "42 CIDEr-D 125.0 a red square references A green square. a square"
    assert page.text.index("Best captions") < page.text.index(text) < page.text.index("Worst captions")
    assert page.text.index("Worst captions") < page.text.index("a tree")
    for words in ("first run", "scored on val", "CIDEr-D 12.3"):
        assert words in page.text
    assert_inert(page)


def test_wrong_words_are_marked():
    text = predictions_page("first run", (), {}, {"Best captions": [prediction()]})
    assert '<blockquote dir="auto">a <span class="wrong">red</span> square</blockquote>' in text


def test_an_image_that_is_missing_is_reported():
    page = shown([prediction(image=None)])
    assert "the image is not available" in page.text
    assert "a red square" in page.text
    assert page.pictures == []


def test_an_image_that_cannot_be_read_affects_no_page():
    assert "the image cannot be shown" in shown([prediction(image=picture()[:40])]).text


def test_no_caption_becomes_markup():
    page = shown([prediction(words=(NASTY,), references=(NASTY,), name=NASTY)], notices=[NASTY])  # two alerts each
    assert page.text.count("alert") == 8
    assert_inert(page)


def test_an_empty_caption_is_shown_as_empty():
    assert "(empty)" in shown([prediction(words=())]).text


def test_a_model_that_attends_has_a_map_a_word():
    looks = draw_attention_maps(
        picture(), Caption("a dog", ("a", "dog"), -1.0, np.full((2, 16), 1 / 16, np.float16)), FITTING
    )
    assert Image.open(BytesIO(looks)).format == "JPEG"
    page = shown([prediction(attention=looks)])
    assert len(page.pictures) == 2
    assert "Attention maps" in page.text


@pytest.mark.parametrize(
    ("image", "attention"),
    [(None, np.ones((1, 16))), (picture(), None), (picture(), np.ones((1, 12))), (b"none", np.ones((1, 16)))],
)
def test_where_there_is_no_map_there_is_no_figure(image, attention):
    assert draw_attention_maps(image, Caption("dog", ("dog",), -1.0, attention), FITTING) is None
