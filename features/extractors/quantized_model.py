"""Quantizes frozen graphs to int8 and runs them with OpenVINO, which the extra `openvino` installs.

frozen graph + pixels of calibration images → NNCF: ranges of activations, int8 weights per channel
                                            → layers that lose most precision return to float32 → OpenVINO's IR

The result depends on the calibration images, so a quantized network is built once and stored. Its file is a zip of the
two files of the IR, `network.xml` and `network.bin`.
"""

import contextlib
import importlib.util
import logging
import math
import os
import tempfile
import threading
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.images.resize import Pixels
from features.runtime.numerics import detect_openvino_runtime
from schemas.errors import CaptError, CorruptFileError, UsageError

_XML, _BIN = "network.xml", "network.bin"
_HINT = "Run `pip install 'capt[openvino]'`."
# NNCF sends usage statistics to a server, unless this variable is set.
_NO_TELEMETRY = "NNCF_CI"
_FUSED_NAMES = "fused_names"  # information about an operation: those of the operations that it replaces

# Largest difference of the mean cosine of calibration images to 1. Other images lose a little more.
MAX_LOSS = 0.004
_RANKING_IMAGES = 20  # calibration images that rank operations by the precision that they lose

_sharing = threading.Lock()


class QuantizedModel:
    """A quantized network on the processor. `shape` is that of one image's features.

    Convolutions and products are sums of integers, which are exact in any order.
    """

    parallel_calls = 1  # one forward pass uses all cores

    def __init__(self, data: bytes) -> None:
        import openvino

        with zipfile.ZipFile(BytesIO(data)) as file:
            model = openvino.Core().read_model(file.read(_XML), file.read(_BIN))
        self.shape: tuple[int, ...] = tuple(axis.get_length() for axis in [*model.output(0).partial_shape][1:])
        self._request: Any = _compile(model).create_infer_request()
        self._computing = threading.Lock()
        runtime = detect_openvino_runtime()
        self.device = runtime.device
        self.numerics = runtime.numerics  # numerics class of the features

    def predict(self, pixels: Pixels) -> NDArray[np.float32]:
        """Returns features float32 [N, ...] of pixels [N, H, W, 3], of the dtype that the graph was frozen for."""
        with self._computing:
            features: NDArray[np.float32] = self._request.infer([pixels])[0].copy()
        return features


def check_installed(location: str, *packages: str) -> None:
    """Raises UsageError if a package of the extra `openvino` is missing."""
    missing = next((name for name in packages if importlib.util.find_spec(name) is None), None)
    if missing:
        raise UsageError(f"int8 needs the package {missing!r}, which is not installed", location=location, hint=_HINT)


def load_quantized_model(path: Path) -> QuantizedModel:
    """Loads a quantized network from a file.

    Raises:
        CorruptFileError: The file is missing, or not a quantized network.
        UsageError: OpenVINO is not installed.
    """
    check_installed(str(path), "openvino")
    try:
        return QuantizedModel(path.read_bytes())
    except FileNotFoundError:
        raise CorruptFileError("the quantized network is missing", location=str(path)) from None
    except (zipfile.BadZipFile, KeyError, RuntimeError) as error:  # OpenVINO raises RuntimeError for a corrupt IR.
        raise CorruptFileError("the quantized network is corrupt", location=str(path)) from error


def load_shared_quantized_model(path: Path) -> QuantizedModel:
    """Loads a quantized network once per process; threads share it."""
    with _sharing:
        return _load_last(path)


_load_last = lru_cache(maxsize=1)(load_quantized_model)


@dataclass(frozen=True)
class QuantizedNetwork:
    """A new quantized network: its file, and the cosines float64 [N] of the calibration images to float32."""

    data: bytes
    cosines: NDArray[np.float64]


def quantize(graph: bytes, pixels: Pixels) -> QuantizedNetwork:
    """Quantizes a frozen graph in float32. `pixels` [N, H, W, 3] are those of the calibration images.

    Activations have a range per tensor, asymmetric where they are negative, too; weights one per channel. Depthwise
    convolutions stay in float32. Biases are corrected by the mean error of the calibration images. If the mean cosine
    of their features to those in float32 is below `1 - MAX_LOSS`, NNCF returns operations to float32, those first that
    lose most. No sum of products overflows on processors without VNNI.

    Raises:
        CaptError: The features of an image are not finite.
    """
    import openvino

    os.environ.setdefault(_NO_TELEMETRY, "1")
    import nncf
    from openvino._offline_transformations import apply_moc_transformations

    logging.getLogger("nncf").setLevel(logging.ERROR)  # nncf.set_log_level also changes handlers of other loggers
    with (
        tempfile.TemporaryDirectory(prefix="capt-quantize-") as directory,
        contextlib.redirect_stdout(StringIO()),  # NNCF prints progress bars to it
    ):
        frozen = Path(directory, "graph.pb")
        frozen.write_bytes(graph)
        model = openvino.Core().read_model(frozen)
        exact = _compile(model)
        images = [_CalibrationImage(one, _infer(exact, one)) for one in np.split(pixels, len(pixels))]
        if not all(np.isfinite(image.features).all() for image in images):
            raise CaptError("the features of a calibration image are infinite or not a number", location="--precision")
        # Folds normalizations into convolutions, whose weights are quantized next.
        apply_moc_transformations(model, cf=True)
        quantized = nncf.quantize_with_accuracy_control(
            model,
            calibration_dataset=nncf.Dataset(images, lambda image: image.pixels),
            validation_dataset=nncf.Dataset(images),
            validation_fn=_validate,
            max_drop=MAX_LOSS,
            drop_type=nncf.DropType.ABSOLUTE,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            # Depthwise convolutions take little time and lose most of the precision.
            ignored_scope=nncf.IgnoredScope(types=["GroupConvolution"], validate=False),
            # Weights have 7 bits, because sums of products overflow 16 bits on processors without VNNI.
            advanced_quantization_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.quantization.advanced_parameters.OverflowFix.ENABLE
            ),
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=_RANKING_IMAGES
            ),
        )
        cosines = _compute_cosines(_compile(quantized), images)
        _rename_operations(quantized)
        xml, weights = Path(directory, _XML), Path(directory, _BIN)
        openvino.serialize(quantized, xml, weights)
        data = BytesIO()
        with zipfile.ZipFile(data, "w") as file:
            for path in (xml, weights):
                file.writestr(zipfile.ZipInfo(path.name), path.read_bytes())  # has a fixed time
    return QuantizedNetwork(data.getvalue(), np.array(cosines))


@dataclass(frozen=True)
class _CalibrationImage:
    """Pixels [1, H, W, 3] and the features in float32 [1, ...] that they have in float32."""

    pixels: Pixels
    features: NDArray[np.float32]


def _compile(model: Any) -> Any:
    """Compiles a model for the processor. Layers that are not quantized must not compute in bfloat16."""
    import openvino

    return openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def _rename_operations(model: Any) -> None:
    """Gives operations names that depend on their order alone; NNCF numbers them by the models of the process."""
    for number, operation in enumerate(model.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
        information = operation.get_rt_info()
        for key in [key for key in information if key.startswith(_FUSED_NAMES)]:
            del information[key]


def _infer(compiled: Any, pixels: Pixels) -> NDArray[np.float32]:
    features: NDArray[np.float32] = compiled(pixels)[0].copy()
    return features


def _validate(compiled: Any, images: Iterable[_CalibrationImage]) -> tuple[float, list[float]]:
    """Returns the mean of the cosines of calibration images, and each of them."""
    cosines = _compute_cosines(compiled, images)
    return sum(cosines) / len(cosines), cosines


def _compute_cosines(compiled: Any, images: Iterable[_CalibrationImage]) -> list[float]:
    return [_compute_cosine(_infer(compiled, image.pixels), image.features) for image in images]


def _compute_cosine(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """Returns the cosine of two arrays; 1 if both are zero, 0 if one is, or has numbers that are not finite."""
    a, b = (one.ravel().astype(np.float64) for one in (first, second))
    norm = math.sqrt((a @ a) * (b @ b))
    if not np.isfinite(norm):
        return 0.0
    return float(a @ b / norm) if norm else float(np.array_equal(a, b))
