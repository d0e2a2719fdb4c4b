"""Refuses to mix rows into a table that another processor, device or library computed, unless the user allows it."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence

from features.extractors.frozen_graph import detect_numerics_class, list_devices
from features.runtime.numerics import detect_toolchain, warn_about_emulation
from features.store import FeatureTable
from pipelines.beam.runners import runs_locally
from schemas.choices import Precision
from schemas.errors import StoreError
from schemas.frozen import Frozen
from schemas.manifests import FeatureMetadata, Manifest

# What a row's bits depend on besides the frozen network. The other libraries of the toolchain do not touch values.
_DECIDE_BITS = ("pillow", "libjpeg", "tensorflow")

_log = logging.getLogger("capt.prepare")


class Provenance(Frozen):
    """What computed rows.

    Args:
        numerics: Numerics class of the device that computed them.
        toolchain: Versions of the libraries in the process that computed them.
    """

    numerics: str
    toolchain: dict[str, str]

    @property
    def deciding(self) -> Mapping[str, str]:
        """What the bits of the rows depend on, by name."""
        return {"numerics": self.numerics, **{name: self.toolchain.get(name, "unknown") for name in _DECIDE_BITS}}


def local_provenance(precision: Precision) -> Provenance:
    """Returns the provenance of rows that this process computes."""
    return Provenance(numerics=detect_numerics_class(precision), toolchain=detect_toolchain())


def check_launch(table: FeatureTable | None, precision: Precision, options: Iterable[str], allow_mixed: bool) -> None:
    """Checks, before work begins, whether this machine may add rows to a table.

    Nothing is checked if workers on other machines compute. Their rows are checked before they are committed.

    Args:
        table: The table; None if it is new.
        precision: Precision of the features.
        options: Options of Beam and its runner.
        allow_mixed: Whether a table may contain rows of several numerics classes.

    Raises:
        StoreError: The rows would differ in bits from those in the table, and mixing is not allowed.
    """
    if not runs_locally(options):
        return
    if table:
        check_mixture(str(table.root), list_provenances(table.manifests), [local_provenance(precision)], allow_mixed)
    if list_devices()[0].kind == "cpu":
        warn_about_emulation(precision)


def check_mixture(location: str, held: Iterable[Provenance], added: Iterable[Provenance], allow_mixed: bool) -> None:
    """Checks whether rows that are added, and those that a table contains, come from the same arithmetic.

    Args:
        location: The table.
        held: Provenance of the rows in the table.
        added: Provenance of the rows that are added.
        allow_mixed: Whether a table may contain rows of several numerics classes.

    Raises:
        StoreError: They differ, and mixing is not allowed. If it is allowed, a warning is logged.
    """
    difference = next(_differences([*held, *added]), None)
    if difference is None:
        return
    name, theirs, ours = difference
    message = f"the table has rows made with {name} {theirs}, and others are made with {name} {ours}"
    if not allow_mixed:
        raise StoreError(message, location=location, hint="use --allow-mixed-numerics to have both, or another --store")
    _log.warning("%s: %s", location, message)


def _differences(made: Sequence[Provenance]) -> Iterator[tuple[str, str, str]]:
    for one in made[1:]:
        first, other = made[0].deciding, one.deciding
        yield from ((name, first[name], other[name]) for name in first if first[name] != other[name])


def list_provenances(manifests: Iterable[Manifest]) -> list[Provenance]:
    """Returns the provenance of the rows of each commit that has rows."""
    facts = (manifest.facts for manifest in manifests if manifest.shards)
    return [
        Provenance(numerics=one.numerics, toolchain=one.toolchain) for one in facts if isinstance(one, FeatureMetadata)
    ]
