"""Requests are computed in batches of equal keys, in order; the queue is bounded, and errors reach their requests."""

import threading
from collections.abc import Iterator, Sequence

import pytest

from workflows.serving.batching import Batcher, QueueFullError
from workflows.serving.limits import ServingLimits

LIMITS = ServingLimits(max_batch_images=4, max_waiting_images=6)


class Doubler:
    """Doubles numbers when it may."""

    def __init__(self) -> None:
        self.may_go = threading.Event()
        self.has_begun = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.has_begun.set()
        self.may_go.wait(30)
        self.batches.append(list(items))
        if 13 in items:
            raise ValueError("13")
        return [2 * item for item in items]


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


@pytest.fixture
def batcher(doubler: Doubler) -> Iterator[Batcher[int, int]]:
    """A batcher whose first batch, 0, is in progress."""
    made = Batcher[int, int]("test", doubler, LIMITS)
    made.submit("first", 1, 0)
    doubler.has_begun.wait(30)
    yield made
    doubler.may_go.set()
    made.close()


def test_waiting_requests_with_equal_keys_are_one_batch(batcher, doubler) -> None:
    futures = [batcher.submit(key, 1, item) for key, item in (("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5))]
    doubler.may_go.set()
    assert [future.result(30) for future in futures] == [2, 4, 6, 8, 10]
    assert doubler.batches == [[0], [1, 3, 5], [2, 4]]


def test_a_batch_has_a_limited_number_of_images(batcher, doubler) -> None:
    futures = [batcher.submit("a", images, item) for images, item in ((3, 1), (2, 2), (1, 3))]
    doubler.may_go.set()
    assert [future.result(30) for future in futures] == [2, 4, 6]
    assert doubler.batches == [[0], [1, 3], [2]]


def test_a_full_queue_refuses_requests(batcher, doubler) -> None:
    batcher.submit("a", 4, 1)
    with pytest.raises(QueueFullError):
        batcher.submit("a", 3, 2)
    given_up = batcher.submit("a", 2, 3)
    given_up.cancel()
    last = batcher.submit("a", 2, 4)
    doubler.may_go.set()
    assert last.result(30) == 8
    assert all(3 not in batch for batch in doubler.batches)


def test_an_error_reaches_every_request_of_its_batch_and_no_other(batcher, doubler) -> None:
    futures = [batcher.submit(key, 1, item) for key, item in (("a", 13), ("a", 1), ("b", 2))]
    doubler.may_go.set()
    for future in futures[:2]:
        with pytest.raises(ValueError, match="13"):
            future.result(30)
    assert futures[2].result(30) == 4
