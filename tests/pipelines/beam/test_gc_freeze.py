import gc

from pipelines.beam.gc_freeze import freeze_gc


def test_a_frozen_collector_stays_frozen() -> None:
    gc.freeze()
    with freeze_gc():
        pass
    assert gc.get_freeze_count()
