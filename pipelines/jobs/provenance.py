"""Refuses to mix rows into a table that another processor, device or library computed, unless the user allows it."""

import logging
from collections.abc import Iterable, Mapping

from features.extractors.pixels import NUMERICS as PIXEL_NUMERICS
from features.extractors.runtimes import TENSORFLOW_CPU, RuntimeChoice
from features.runtime.numerics import (
    FROZEN_LIBRARIES,
    GPU_PACKAGES,
    OPENVINO,
    detect_toolchain,
    parse_numerics,
    warn_about_emulation,
)
from features.store import FeatureTable
from pipelines.beam.runner_options import runs_locally
from schemas.errors import StoreError
from schemas.frozen import Frozen
from schemas.manifests import FeatureMetadata, Manifest
from schemas.table_config import FeatureTableConfig

# Components that affect the bits of a row, besides the stored extractor.
_IMAGE_LIBRARIES = ("pillow", "libjpeg")
_DECODERS = ("libavif", "openjpeg", "pi-heif")  # a process without one has no rows of its format
_BACKENDS = ("tensorflow", "jax", "jaxlib", "torch")

_log = logging.getLogger("capt.prepare")


class Provenance(Frozen):
    """The origin of rows: numerics class of the device, and versions of the libraries, that computed them."""

    numerics: str
    toolchain: dict[str, str]

    @property
    def deciding(self) -> Mapping[str, str]:
        """The components that affect the bits of the rows, by name."""
        versions = {name: self.toolchain.get(name, "unknown") for name in _list_deciding(self.numerics)}
        decoders = {name: self.toolchain[name] for name in _DECODERS if name in self.toolchain}
        return {"numerics": self.numerics, **versions, **decoders}


def _list_deciding(numerics: str) -> tuple[str, ...]:
    """Returns the libraries that affect the bits of rows of a numerics class.

    A frozen graph is computed by TensorFlow alone, a quantized network by OpenVINO. Keras builds a compiled model from
    its file.
    """
    if numerics == PIXEL_NUMERICS:
        return _IMAGE_LIBRARIES
    kind, library = parse_numerics(numerics) or (None, None)
    if library == OPENVINO:
        return (*_IMAGE_LIBRARIES, OPENVINO)
    is_compiled = library is not None and library not in FROZEN_LIBRARIES
    of_keras = ("keras",) if is_compiled else ()
    return (*_IMAGE_LIBRARIES, *_BACKENDS, *of_keras, *(GPU_PACKAGES if kind == "gpu" else ()))


def local_provenance(table_config: FeatureTableConfig, runtime: RuntimeChoice = TENSORFLOW_CPU) -> Provenance:
    """Returns the provenance of features that this process computes."""
    return Provenance(numerics=runtime.detect_numerics_class(table_config), toolchain=detect_toolchain())


def list_provenances(manifests: Iterable[Manifest]) -> list[Provenance]:
    facts = (manifest.facts for manifest in manifests if manifest.shards)
    return [
        Provenance(numerics=one.numerics, toolchain=one.toolchain) for one in facts if isinstance(one, FeatureMetadata)
    ]


def check_launch(
    table: FeatureTable | None,
    table_config: FeatureTableConfig,
    runtime: RuntimeChoice,
    options: Iterable[str],
    allow_mixed: bool,
) -> None:
    """Checks before extraction whether this run may add rows to a table. `table` is None if it is new.

    If workers on other machines compute (`options` of Beam), only their backend, the kind of their device and the
    format of their extractor are known here. The rest is checked before the commit.
    """
    held = list_provenances(table.manifests) if table else []
    location = str(table.root) if table else ""
    if not runs_locally(options):
        _check_remote(location, held, runtime, allow_mixed)
        return
    if held:
        check_mixture(location, held, [local_provenance(table_config, runtime)], allow_mixed)
    if runtime.device == "cpu":
        warn_about_emulation(table_config.precision)


def _check_remote(location: str, held: Iterable[Provenance], runtime: RuntimeChoice, allow_mixed: bool) -> None:
    other = next((one.numerics for one in held if not runtime.may_compute(one.numerics)), None)
    if other is not None:
        device = "" if runtime.device == "auto" else f" on a {runtime.device.upper()}"
        message = f"the table has rows computed with numerics class {other}, and the workers of this run compute with "
        _refuse_mixture(location, f"{message}{runtime.backend}{device}", allow_mixed)


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
    _refuse_mixture(location, message, allow_mixed)


def _refuse_mixture(location: str, message: str, allow_mixed: bool) -> None:
    if not allow_mixed:
        hint = "Use --allow-mixed-numerics to store both, or another --store."
        raise StoreError(message, location=location, hint=hint)
    _log.warning("%s: %s. Such rows are not bit-identical.", location, message)
