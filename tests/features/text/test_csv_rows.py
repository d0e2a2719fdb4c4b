"""CSV rows equal those of the csv module started at each line, in linear time."""

import csv
from collections import deque
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.text import csv_rows
from features.text.csv_rows import read_rows
from features.text.lines import FailedRecord


def rows(data: bytes, delimiter: str = ",") -> list[tuple[int, list[str] | str]]:
    """Line number and fields of each row, or the reason why it is none."""
    read = []
    for row in read_rows(data, "a", delimiter):
        number = int(row.location.removeprefix("a:").split(" ")[0])
        read.append((number, row.reason if isinstance(row, FailedRecord) else row.fields))
    return read


def tried_anew(data: str) -> Iterator[tuple[int, list[str] | str]]:
    """The same by the csv module, which reads on from each line to the end of the text where quotes do not close."""
    lines = data.split("\n")
    waiting = deque(enumerate((f"{line}\n" for line in lines), 1))
    while waiting:
        taken: list[tuple[int, str]] = []

        def feed(taken: list[tuple[int, str]] = taken) -> Iterator[str]:
            while waiting:
                taken.append(waiting.popleft())
                yield taken[-1][1]

        try:
            fields = next(csv.reader(feed(), strict=True), [])
        except csv.Error:
            waiting.extendleft(reversed(taken[1:]))
            yield taken[0][0], "bad quoting"
        else:
            if any(field.strip() for field in fields):
                yield taken[0][0], fields


@given(st.text('aé",\n', max_size=40))
@example('a"b,"c"\n')
@example('"",""\n""""\n"a""\n"\n')
@settings(max_examples=500, deadline=None, database=None)
def test_rows_equal_those_of_the_csv_module_started_at_each_line(data: str) -> None:
    assert rows(f"{data}\n".encode()) == list(tried_anew(f"{data}\n"))


@pytest.mark.parametrize("row", ['a","c\n', '"a\n', 'a,"b"c\n', '"a""\n', '",\n', '"a,"b\n'])
@pytest.mark.parametrize("ending", ["", '"x\n', 'a,"\n"\n'])
def test_unclosed_quotes_take_linear_time(monkeypatch: pytest.MonkeyPatch, row: str, ending: str) -> None:
    looked = 0
    state = csv_rows._Text.parse_state

    def counted(self: csv_rows._Text, line: bytes) -> str:
        nonlocal looked
        looked += 1
        return state(self, line)

    monkeypatch.setattr(csv_rows._Text, "parse_state", counted)
    rows((row * 3000 + ending).encode())
    assert looked <= 4 * 3000


def test_the_end_of_the_first_line_ends_all_and_the_others_stay_within_quotes() -> None:
    assert rows(b'a,b\rc,"d\ne"\r\rf,g') == [(1, ["a", "b"]), (2, ["c", "d\ne"]), (4, ["f", "g"])]
    assert rows(b'a,b\r\nc,"d\re"\r\nf,g\r\r\n') == [(1, ["a", "b"]), (2, ["c", "d\re"]), (3, ["f", "g"])]


def test_other_line_ends_outside_quotes_fail_each_part() -> None:
    mixed = "mixed line ends"
    assert rows(b"a,b\nc,d\re,f\ng,h\n") == [(1, ["a", "b"]), (2, mixed), (2, mixed), (3, ["g", "h"])]
    assert rows(b"a,b\rc,d\ne,f\rg,h") == [(1, ["a", "b"]), (2, mixed), (2, mixed), (3, ["g", "h"])]


def test_a_row_over_the_limit_affects_only_its_first_line() -> None:
    fits = b'"' + b"x" * (csv_rows.MAX_ROW - 5) + b'",\n'
    assert [len(row[1]) for row in rows(fits)] == [2]
    assert rows(b"a,b\n" + b"xx" + fits.replace(b'"', b"x") + b"c,d\n") == [
        (1, ["a", "b"]),
        (2, "too long"),
        (3, ["c", "d"]),
    ]
    long = b'"' + b"x\n" * csv_rows.MAX_ROW + b'",b\n'
    assert rows(long)[0] == (1, "too long")


def test_a_quote_that_would_join_rows_of_a_tsv_fails_its_line_only() -> None:
    data = b'a\tb\n1\t"abc\n2\tdef\n3\tghi"\n4\t"j\nk"\n5\t"l\tm"\n'
    assert rows(data, "\t") == [
        (1, ["a", "b"]),
        (2, "bad quoting"),
        (3, ["2", "def"]),
        (4, ["3", 'ghi"']),
        (5, ["4", "j\nk"]),
        (7, ["5", "l\tm"]),
    ]


def test_a_line_end_outside_quotes_after_a_quoted_one_fails_each_part_of_a_tsv() -> None:
    found = rows(b'a\tb\tc\n1\t"j\nk"\tx\ry\n2\tl\tm\n', "\t")
    assert [one for _, one in found] == [["a", "b", "c"], *["mixed line ends"] * 3, ["2", "l", "m"]]
