"""The heap: what libraries have put there is passed over by the garbage collector while many records go by."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def freeze_gc() -> Iterator[None]:
    """Within the block the collector looks at new objects only.

    Every so many new objects, Python's collector walks through all there are. TensorFlow and Beam keep about a million,
    and a run that makes a few objects a record spent a tenth of its time among them.

    What a caller has settled stays so.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
