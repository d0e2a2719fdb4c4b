from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.image_inputs import ImageInput
from trainer.inference.partial_output import PartialOutput


def pictures(count: int, *changed: int) -> list[ImageInput | None]:
    return [ImageInput(f"{number}.png", bytes, f"stamp {number in changed}") for number in range(count)]


def test_lines_in_any_order_become_a_file_in_theirs(tmp_path):
    out = tmp_path / "deep" / "out.txt"
    lines = PartialOutput(out, "me", pictures(3))
    lines.add([(2, "c"), (0, "a")])
    assert lines.missing == [1]
    assert not out.exists()
    lines.add([(1, "b")])
    lines.finish()
    assert out.read_text() == "a\nb\nc\n"
    assert [path.name for path in out.parent.iterdir()] == ["out.txt"]


def test_a_killed_job_goes_on_with_its_whole_lines(tmp_path):
    out = tmp_path / "out.txt"
    PartialOutput(out, "me", pictures(3)).add([(0, "a"), (2, "c\td")])
    with (tmp_path / "out.txt.part").open("ab") as part:
        part.write((tmp_path / "out.txt.part").read_bytes().splitlines(keepends=True)[1][:9])
    again = PartialOutput(out, "me", pictures(3))
    assert (again.resumed, again.missing) == (2, [1])
    again.add([(1, "b")])
    again.finish()
    assert out.read_text() == "a\nb\nc\td\n"


def test_of_a_line_that_comes_again_the_last_is_meant(tmp_path):
    out = tmp_path / "out.txt"
    PartialOutput(out, "me", pictures(2)).add([(0, "a"), (1, "b")])
    again = PartialOutput(out, "me", pictures(2))
    again.add([(1, "c")])
    again.finish()
    assert out.read_text() == "a\nc\n"


def test_another_jobs_lines_are_not_taken_over(tmp_path):
    PartialOutput(tmp_path / "out.txt", "you", pictures(2)).add([(0, "x")])
    assert PartialOutput(tmp_path / "out.txt", "me", pictures(2)).missing == [0, 1]


def test_lines_of_pictures_that_changed_are_missing(tmp_path):
    out = tmp_path / "out.txt"
    PartialOutput(out, "me", pictures(3)).add([(0, "a"), (1, "b"), (2, "c")])
    again = PartialOutput(out, "me", pictures(3, 1))
    assert (again.resumed, again.missing) == (2, [1])
    again.add([(1, "d")])
    again.finish()
    assert out.read_text() == "a\nd\nc\n"


def test_lines_of_fewer_or_more_pictures_are_another_jobs(tmp_path):
    out = tmp_path / "out.txt"
    PartialOutput(out, "me", pictures(3)).add([(0, "a"), (1, "b"), (2, "c")])
    assert PartialOutput(out, "me", pictures(2)).missing == [0, 1]


def test_lines_that_stand_instead_of_missing_ones_are_kept_nowhere_else(tmp_path):
    out = tmp_path / "out.txt"
    lines = PartialOutput(out, "me", [*pictures(2), None])
    lines.add([(1, "b")])
    before = (tmp_path / "out.txt.part").read_bytes()
    (tmp_path / "out.txt").mkdir()
    with pytest.raises(IsADirectoryError):
        lines.finish("{} none".format)
    assert (tmp_path / "out.txt.part").read_bytes() == before
    (tmp_path / "out.txt").rmdir()
    lines.finish("{} none".format)
    assert out.read_text() == "0 none\nb\n2 none\n"


@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc"))), max_size=8), st.randoms())
def test_any_text_comes_out_as_it_went_in(tmp_path_factory, texts, random):
    out = Path(tmp_path_factory.mktemp("partial")) / "out.txt"
    lines = PartialOutput(out, "me", pictures(len(texts)))
    numbered = list(enumerate(texts))
    random.shuffle(numbered)
    lines.add(numbered)
    lines.finish()
    assert out.read_bytes() == "".join(f"{text}\n" for text in texts).encode()
