"""Numerics: rows whose bits another processor or other libraries made are not mixed into a table unasked."""

import logging
from collections.abc import Iterator

from features.networks import numerics_class, toolchain
from features.store import FeatureTable
from schemas.errors import StoreError
from schemas.manifests import FeatureFacts

# What a row's bits depend on besides the frozen network. The other libraries of the toolchain do not touch values.
_DECIDE_BITS = ("pillow", "libjpeg", "tensorflow")

_log = logging.getLogger("capt.prepare")


def check_numerics(table: FeatureTable, allow_mixed: bool) -> None:
    """StoreError, or with `allow_mixed` a warning, where rows made here would differ in bits from those in the table.

    Args:
        table: FeatureTable. The table that is to be added to.
        allow_mixed: bool. Whether rows of several kinds may be in one table.
    """
    difference = next(_differences(table), None)
    if difference is None:
        return
    name, theirs, ours = difference
    what = f"the table has rows made with {name} {theirs}, and here they are made with {name} {ours}"
    if not allow_mixed:
        raise StoreError(what, where=str(table.root), mend="use --allow-mixed to have both, or another --store")
    _log.warning("%s: %s", table.root, what)


def _differences(table: FeatureTable) -> Iterator[tuple[str, str, str]]:
    made = toolchain()
    ours = {"numerics": numerics_class(), **{name: made[name] for name in _DECIDE_BITS}}
    for manifest in table.manifests:
        facts = manifest.facts
        if manifest.shards and isinstance(facts, FeatureFacts):
            theirs = {
                "numerics": facts.numerics,
                **{name: facts.toolchain.get(name, "unknown") for name in _DECIDE_BITS},
            }
            yield from ((name, theirs[name], ours[name]) for name in ours if theirs[name] != ours[name])
