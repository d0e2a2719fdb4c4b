import gc

from pipelines.heap import settled_heap


def test_what_a_caller_has_settled_stays_so() -> None:
    gc.freeze()
    with settled_heap():
        pass
    assert gc.get_freeze_count()
