from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.inference.image_inputs import ImageInput
from trainer.inference.partial_output import PartialOutput


def pictures(count: int, *changed: int) -> list[ImageInput | None]:
    return [ImageInput(f"{number}.png", bytes, f"stamp {number in changed}") for number in range(count)]


def test_lines_in_any_order_become_a_sorted_file(tmp_path):
    out = tmp_path / "deep" / "out.txt"
    lines = PartialOutput(out, "me", pictures(3))
    lines.add([(2, "c"), (0, "a")])
    assert lines.missing == [1]
    assert not out.exists()
    lines.add([(1, "b")])
    lines.finish()
    assert out.read_text() == "a\nb\nc\n"
    assert [path.name for path in out.parent.iterdir()] == ["out.txt"]


def test_an_interrupted_job_resumes_with_its_complete_lines(tmp_path):
    out = tmp_path / "out.txt"
    PartialOutput(out, "me", pictures(3)).add([(0, "a"), (2, "c\td")])
    with (tmp_path / "out.txt.part").open("ab") as part:
        part.write((tmp_path / "out.txt.part").read_bytes().splitlines(keepends=True)[1][:9])
    again = PartialOutput(out, "me", pictures(3))
    assert (again.resumed, again.missing) == (2, [1])
    again.add([(1, "b")])
    again.finish()
    assert out.read_text() == "a\nb\nc\td\n"


def test_the_last_of_two_equal_line_numbers_counts(tmp_path):
    out = tmp_path / "out.txt"
    PartialOutput(out, "me", pictures(2)).add([(0, "a"), (1, "b")])
    again = PartialOutput(out, "me", pictures(2))
    again.add([(1, "c")])
    again.finish()
    assert out.read_text() == "a\nc\n"


def test_lines_of_another_job_are_discarded(tmp_path):
    PartialOutput(tmp_path / "out.txt", "you", pictures(2)).add([(0, "x")])
    assert PartialOutput(tmp_path / "out.txt", "me", pictures(2)).missing == [0, 1]


def test_lines_of_changed_images_are_missing(tmp_path):
    out = tmp_path / "out.txt"
    PartialOutput(out, "me", pictures(3)).add([(0, "a"), (1, "b"), (2, "c")])
    again = PartialOutput(out, "me", pictures(3, 1))
    assert (again.resumed, again.missing) == (2, [1])
    again.add([(1, "d")])
    again.finish()
    assert out.read_text() == "a\nd\nc\n"


def test_another_number_of_images_is_another_job(tmp_path):
    out = tmp_path / "out.txt"
    PartialOutput(out, "me", pictures(3)).add([(0, "a"), (1, "b"), (2, "c")])
    assert PartialOutput(out, "me", pictures(2)).missing == [0, 1]


def test_fallback_lines_are_not_kept_for_the_next_run(tmp_path):
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
def test_any_text_is_written_unchanged(tmp_path_factory, texts, random):
    out = Path(tmp_path_factory.mktemp("partial")) / "out.txt"
    lines = PartialOutput(out, "me", pictures(len(texts)))
    numbered = list(enumerate(texts))
    random.shuffle(numbered)
    lines.add(numbered)
    lines.finish()
    assert out.read_bytes() == "".join(f"{text}\n" for text in texts).encode()
