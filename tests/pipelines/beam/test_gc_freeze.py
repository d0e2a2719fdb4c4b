import gc

from pipelines.beam.gc_freeze import freeze_gc


def test_what_a_caller_has_settled_stays_so() -> None:
    gc.freeze()
    with freeze_gc():
        pass
    assert gc.get_freeze_count()
