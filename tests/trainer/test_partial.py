from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from trainer.partial import PartialLines


def test_lines_in_any_order_become_a_file_in_theirs(tmp_path):
    out = tmp_path / "deep" / "out.txt"
    lines = PartialLines(out, "me", 3)
    lines.add([(2, "c"), (0, "a")])
    assert lines.missing == [1]
    assert not out.exists()
    lines.add([(1, "b")])
    lines.finish()
    assert out.read_text() == "a\nb\nc\n"
    assert [path.name for path in out.parent.iterdir()] == ["out.txt"]


def test_a_killed_job_goes_on_with_its_whole_lines(tmp_path):
    out = tmp_path / "out.txt"
    PartialLines(out, "me", 3).add([(0, "a"), (2, "c\td")])
    with (tmp_path / "out.txt.part").open("ab") as part:
        part.write(b"1\tha")
    again = PartialLines(out, "me", 3)
    assert (again.resumed, again.missing) == (2, [1])
    again.add([(1, "b")])
    again.finish()
    assert out.read_text() == "a\nb\nc\td\n"


def test_of_a_line_that_comes_again_the_last_is_meant(tmp_path):
    out = tmp_path / "out.txt"
    PartialLines(out, "me", 2).add([(0, "a"), (1, "b")])
    again = PartialLines(out, "me", 2)
    again.add([(1, "c")])
    again.finish()
    assert out.read_text() == "a\nc\n"


def test_another_jobs_lines_are_not_taken_over(tmp_path):
    PartialLines(tmp_path / "out.txt", "you", 2).add([(0, "x")])
    assert PartialLines(tmp_path / "out.txt", "me", 2).missing == [0, 1]


@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc"))), max_size=8), st.randoms())
def test_any_text_comes_out_as_it_went_in(tmp_path_factory, texts, random):
    out = Path(tmp_path_factory.mktemp("partial")) / "out.txt"
    lines = PartialLines(out, "me", len(texts))
    numbered = list(enumerate(texts))
    random.shuffle(numbered)
    lines.add(numbered)
    lines.finish()
    assert out.read_bytes() == "".join(f"{text}\n" for text in texts).encode()
