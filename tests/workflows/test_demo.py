"""The demo runs every step, resumes, and reports values that agree with its files."""

from pathlib import Path

import pytest

import capt
from tests.workflows.test_example_pages import Page, assert_inert
from workflows import demo


@pytest.mark.slow
def test_the_demo_writes_a_report_of_all_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "NUM_SCENES", 40)
    monkeypatch.setattr(demo, "EPOCHS", 1)
    monkeypatch.setattr(demo, "EXTRACTOR", "mobilenet_v3_small")
    result = capt.demo(output=str(tmp_path / "demo"))
    assert (result["scenes"], result["held_out"]) == (40, 8)
    assert len(result["examples"]) == 8
    assert set(result["correct"]) == {"colors", "shapes", "captions"}
    assert all(0 <= score[name] <= 1 for score in result["correct"].values() for name in ("fraction", "chance"))
    page = Page(Path(result["report"]).read_text())
    assert_inert(page)
    assert f"validation loss {result['val_loss']:.3f}" in page.text
    for caption in result["examples"]:
        assert caption in page.text
    assert len(page.pictures) == 1 + 2 * 8, "the loss, and each image with its attention maps"
    again = capt.demo(output=str(tmp_path / "demo"))
    assert again["examples"] == result["examples"]
    assert "0 extracted, 40 already in the store" in Page(Path(again["report"]).read_text()).text
