"""Refuses to mix rows into a table that another processor, device or library computed, unless the user allows it."""

import logging
from collections.abc import Iterable, Mapping

from features.extractors.runtimes import TENSORFLOW_CPU, RuntimeChoice
from features.runtime.numerics import detect_toolchain, warn_about_emulation
from features.store import FeatureTable
from pipelines.beam.runners import runs_locally
from schemas.choices import Precision
from schemas.errors import StoreError
from schemas.frozen import Frozen
from schemas.manifests import FeatureMetadata, Manifest

# Components that affect the bits of a row, besides the frozen extractor.
_DECIDING = ("pillow", "libjpeg", "tensorflow", "jax", "jaxlib", "torch")
_DECODERS = ("libavif", "openjpeg", "pi-heif")  # a process without one has no rows of its format

_log = logging.getLogger("capt.prepare")


class Provenance(Frozen):
    """The origin of rows: numerics class of the device, and versions of the libraries, that computed them."""

    numerics: str
    toolchain: dict[str, str]

    @property
    def deciding(self) -> Mapping[str, str]:
        """The components that affect the bits of the rows, by name."""
        versions = {name: self.toolchain.get(name, "unknown") for name in _DECIDING}
        decoders = {name: self.toolchain[name] for name in _DECODERS if name in self.toolchain}
        return {"numerics": self.numerics, **versions, **decoders}


def local_provenance(precision: Precision, runtime: RuntimeChoice = TENSORFLOW_CPU) -> Provenance:
    """Returns the provenance of features that this process computes."""
    return Provenance(numerics=runtime.detect_numerics_class(precision), toolchain=detect_toolchain())


def list_provenances(manifests: Iterable[Manifest]) -> list[Provenance]:
    facts = (manifest.facts for manifest in manifests if manifest.shards)
    return [
        Provenance(numerics=one.numerics, toolchain=one.toolchain) for one in facts if isinstance(one, FeatureMetadata)
    ]


def check_launch(
    table: FeatureTable | None,
    precision: Precision,
    runtime: RuntimeChoice,
    options: Iterable[str],
    allow_mixed: bool,
) -> None:
    """Checks before extraction whether this machine may add rows to a table. `table` is None if it is new.

    If workers on other machines compute (`options` of Beam), their rows are checked before the commit instead.
    """
    if not runs_locally(options):
        return
    if table:
        check_mixture(
            str(table.root), list_provenances(table.manifests), [local_provenance(precision, runtime)], allow_mixed
        )
    if runtime.device == "cpu":
        warn_about_emulation(precision)


def check_mixture(location: str, held: Iterable[Provenance], added: Iterable[Provenance], allow_mixed: bool) -> None:
    """Raises StoreError if rows of a table and added rows are not bit-compatible; logs it if mixing is allowed."""
    sides = [("the table", one.deciding) for one in held] + [("this run", one.deciding) for one in added]
    names = dict.fromkeys(name for _, deciding in sides for name in deciding)
    having = {name: [side for side in sides if name in side[1]] for name in names}
    pairs = ((first, other, name) for name, (first, *others) in having.items() for other in others)
    difference = next((pair for pair in pairs if pair[0][1][pair[2]] != pair[1][1][pair[2]]), None)
    if difference is None:
        return
    *differing, name = difference
    shown = "numerics class" if name == "numerics" else name
    message = ", and ".join(f"{side} has rows computed with {shown} {values[name]}" for side, values in differing)
    if not allow_mixed:
        hint = "Use --allow-mixed-numerics to store both, or another --store."
        raise StoreError(message, location=location, hint=hint)
    _log.warning("%s: %s. Such rows are not bit-identical.", location, message)
