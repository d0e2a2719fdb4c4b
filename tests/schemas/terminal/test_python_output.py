import contextlib
import logging
from collections.abc import Iterator

import pytest

from schemas.errors import UsageError
from schemas.terminal import progress
from schemas.terminal.progress import is_progress_shown, progress_bar
from schemas.terminal.python_output import show_output

_log = logging.getLogger("capt.training")


@contextlib.contextmanager
def plain_logging(*handlers: logging.Handler) -> Iterator[logging.Logger]:
    """The logger of capt in a program that has set up no other handlers than these; pytest adds its own before."""
    log = logging.getLogger("capt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log, "propagate", False)
        patch.setattr(log, "handlers", list(handlers))
        before = log.level
        log.setLevel(logging.WARNING)
        yield log
        log.setLevel(before)


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "is_notebook", lambda: True)
    monkeypatch.setattr(progress, "_POLL_SECONDS", 0)


@pytest.mark.parametrize(
    ("verbose", "shown"), [(0, ["careful"]), (1, ["epoch 1", "careful"]), (2, ["epoch 1", "careful"])]
)
def test_verbose_selects_the_messages(verbose: int, shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with plain_logging(), show_output(verbose):
        _log.info("epoch 1")
        _log.warning("careful")
    assert capsys.readouterr().err.splitlines() == shown


@pytest.mark.usefixtures("notebook")
@pytest.mark.parametrize(("verbose", "is_shown"), [(0, False), (1, True), (2, False)])
def test_verbose_selects_the_progress_bar(verbose: int, is_shown: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with plain_logging(), show_output(verbose):
        assert is_progress_shown() == is_shown
        with progress_bar("epoch 1 of 2", 320, "captions") as update:
            update(160, "loss 2.000")
    assert ("epoch 1 of 2 ██████████░░░░░░░░░░ 160/320 captions, loss 2.000" in capsys.readouterr().out) == is_shown


@pytest.mark.usefixtures("notebook")
def test_a_notebook_shows_messages_where_a_bar_was(capsys: pytest.CaptureFixture[str]) -> None:
    with plain_logging(), show_output(1):
        with progress_bar("epoch 1 of 2", 320, "captions") as update:
            update(160, "")
        _log.info("epoch 1 of 2: loss 2")
    out, err = capsys.readouterr()
    assert out.rpartition("\r")[2] == "epoch 1 of 2: loss 2\n"
    assert err == ""


def test_the_logging_of_the_program_is_used_and_restored(capsys: pytest.CaptureFixture[str]) -> None:
    records: list[logging.LogRecord] = []
    own = logging.Handler()
    own.emit = records.append  # type: ignore[method-assign]
    with plain_logging(own) as log:
        with show_output(1):
            _log.info("epoch 1")
        _log.info("not shown")
        assert log.handlers == [own]
        assert log.level == logging.WARNING
    assert [record.getMessage() for record in records] == ["epoch 1"]
    assert capsys.readouterr().err == ""


def test_another_verbosity_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="verbose: expected 0, 1 or 2, got 3"), show_output(3):
        pass
