import re
from pathlib import Path

import pytest

import capt
from trainer.profiles import PROFILES

_PAGE = Path(capt.__file__).parent / "docs" / "how_to" / "captcha.md"
_BATCH_SIZE = 32


@pytest.mark.parametrize("name", PROFILES)
def test_the_page_states_the_epochs_of_each_profile(name):
    text = _PAGE.read_text(encoding="utf-8")
    headings = re.search(r"^\| profile \|.* epochs for n = (.*) \|$", text, re.MULTILINE)[1]
    first, passes, epochs = re.search(rf"^\| `{name}` \| ([\d,]+) \+ (\d+) n \| (.*) \|$", text, re.MULTILINE).groups()
    profile = PROFILES[name]
    assert (int(first.replace(",", "")), int(passes)) == (profile.first_images, profile.passes)
    sizes = [int(one.replace(",", "")) for one in headings.split(" | ")]
    counted = [profile.count_epochs(images, -(-images // _BATCH_SIZE) * _BATCH_SIZE) for images in sizes]
    assert [int(one) for one in epochs.split(" | ")] == counted
    assert profile.training["batch_size"] == _BATCH_SIZE
