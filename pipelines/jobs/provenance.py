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

# Components that affect the bits of a row, besides the extractor graph.
_DECIDING = ("pillow", "libjpeg", "tensorflow")

_log = logging.getLogger("capt.prepare")


class Provenance(Frozen):
    """The origin of rows.

    Args:
        numerics: Numerics class of the device that computed them.
        toolchain: Versions of the libraries in the process that computed them.
    """

    numerics: str
    toolchain: dict[str, str]

    @property
    def deciding(self) -> Mapping[str, str]:
        """The components that affect the bits of the rows, by name."""
        return {"numerics": self.numerics, **{name: self.toolchain.get(name, "unknown") for name in _DECIDING}}


def local_provenance(precision: Precision) -> Provenance:
    """Returns the provenance of rows that this process computes."""
    return Provenance(numerics=detect_numerics_class(precision), toolchain=detect_toolchain())


def list_provenances(manifests: Iterable[Manifest]) -> list[Provenance]:
    """Returns the provenance of each commit that has rows."""
    facts = (manifest.facts for manifest in manifests if manifest.shards)
    return [
        Provenance(numerics=one.numerics, toolchain=one.toolchain) for one in facts if isinstance(one, FeatureMetadata)
    ]


def check_launch(table: FeatureTable | None, precision: Precision, options: Iterable[str], allow_mixed: bool) -> None:
    """Checks before extraction whether this machine may add rows to a table.

    If workers on other machines compute, their rows are checked before the commit instead.

    Args:
        table: The table; None if it is new.
        precision: Precision of the features.
        options: Options of Beam and the runner.
        allow_mixed: Whether the table may contain rows of several numerics classes.

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
    """Checks whether the rows of a table and added rows are bit-compatible. Logs a warning if mixing is allowed.

    Args:
        location: The table.
        held: Provenance of the rows in the table.
        added: Provenance of the added rows.
        allow_mixed: Whether the table may contain rows of several numerics classes.

    Raises:
        StoreError: The rows are not bit-compatible, and mixing is not allowed.
    """
    difference = next(_find_differences([*held, *added]), None)
    if difference is None:
        return
    name, theirs, ours = difference
    message = f"the table has rows computed with {name} {theirs}, and others are computed with {name} {ours}"
    if not allow_mixed:
        hint = "Use --allow-mixed-numerics to store both, or another --store."
        raise StoreError(message, location=location, hint=hint)
    _log.warning("%s: %s. Such rows are not bit-identical.", location, message)


def _find_differences(provenances: Sequence[Provenance]) -> Iterator[tuple[str, str, str]]:
    for one in provenances[1:]:
        first, other = provenances[0].deciding, one.deciding
        yield from ((name, first[name], other[name]) for name in first if first[name] != other[name])
