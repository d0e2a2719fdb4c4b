"""Chooses the runtime of an extractor, detects it, and loads the extractor for it.

    options → choose_runtime → RuntimeChoice: frozen graph (TensorFlow on a processor), quantized network (OpenVINO) or
                               compiled Keras model
                                             → load_extractor, in the process that computes

A frozen graph is `<sha256>.pb`, a quantized network `<sha256>.openvino`. A `.keras` file contains the same layers and
weights for all other runtimes.
"""

import threading
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from features.extractors.devices import OPTION, detect_device, may_have_accelerator
from features.extractors.factory import choose_input_preprocessing
from features.extractors.frozen_graph import detect_numerics_class, freeze, load_shared_frozen_graph
from features.extractors.output_layers import ModelFunction, build_model_function
from features.extractors.pixels import NAME as PIXELS
from features.extractors.pixels import NUMERICS as PIXEL_NUMERICS
from features.extractors.pixels import PixelModel, build_pixel_function
from features.extractors.quantized_model import check_installed, load_shared_quantized_model
from features.images.resize import Pixels, Resizer
from features.runtime.keras_backend import check_backend, get_backend
from features.runtime.numerics import (
    FROZEN_LIBRARIES,
    OPENVINO,
    Device,
    Runtime,
    detect_openvino_runtime,
    parse_numerics,
)
from schemas.choices import Backend, DeviceChoice, ExtractorFormat, Precision
from schemas.defaults import ACCELERATOR_BATCH_SIZE, BATCH_SIZE
from schemas.errors import UsageError
from schemas.table_config import FeatureTableConfig

_sharing = threading.Lock()


class LoadedExtractor(Protocol):
    """An extractor in this process: a frozen graph, a quantized network or a compiled model."""

    device: Device
    shape: tuple[int, ...]
    parallel_calls: int  # number of concurrent forward passes that use the whole device

    @property
    def numerics(self) -> str:
        """Numerics class of the features."""

    def predict(self, pixels: Pixels) -> NDArray[Any]:
        """Returns features [N, *shape] of pixels [N, H, W, 3]."""


@dataclass(frozen=True)
class RuntimeChoice:
    """The backend of Keras and the device that compute features.

    With the device `auto`, the process that computes uses its first accelerator, or its processor without one. With
    int8, OpenVINO computes on the processor, and the backend only builds the extractor.
    """

    backend: Backend = "tensorflow"
    device: DeviceChoice = "cpu"
    is_int8: bool = False

    @property
    def extractor_format(self) -> ExtractorFormat:
        """The format of the extractor's file: a quantized network with int8, a frozen graph on TensorFlow and a
        processor, otherwise a Keras model.
        """
        if self.is_int8:
            return "openvino"
        return "pb" if (self.backend, self.device) == ("tensorflow", "cpu") else "keras"

    def detect_numerics_class(self, table_config: FeatureTableConfig) -> str:
        """Returns the numerics class of features that this process computes."""
        if table_config.extractor == PIXELS:
            return PIXEL_NUMERICS
        if self.extractor_format == "openvino":
            return detect_openvino_runtime().numerics
        if self.extractor_format == "pb":
            return detect_numerics_class(table_config.precision)
        return Runtime(detect_device(self.backend, self.device), self.backend, table_config.precision).numerics

    def may_compute(self, numerics: str) -> bool:
        """Returns whether another machine with this backend and device may compute features of a numerics class."""
        named = parse_numerics(numerics)
        if named is None:
            return True
        kind, library = named
        if self.extractor_format == "openvino":
            return library == OPENVINO
        if self.extractor_format == "pb":
            return library in FROZEN_LIBRARIES
        return library == self.backend and self.device in ("auto", kind)


TENSORFLOW_CPU = RuntimeChoice()


def choose_runtime(
    backend: Backend | None,
    device: DeviceChoice,
    extractor: str,
    precision: Literal["auto"] | Precision = "auto",
    *,
    is_local: bool,
) -> RuntimeChoice:
    """Chooses the device for an extractor, and checks that `backend`, if given, is that of this process.

    Pixels need no accelerator. If other machines compute (`is_local` is false), JAX and PyTorch choose the device
    there, and TensorFlow uses processors unless the device is `gpu`. int8 is computed on processors.

    Raises:
        UsageError: The backend cannot be used, there is no GPU, or int8 does not apply.
    """
    check_backend(backend)
    selected = get_backend()
    if extractor == PIXELS:
        if device == "gpu":
            raise UsageError("the option does not apply to pixels", location=OPTION, hint="Omit the option.")
        return RuntimeChoice(selected, "cpu")
    if precision == "int8":
        return _choose_openvino(selected, device)
    if device == "auto" and (not may_have_accelerator() if is_local else selected == "tensorflow"):
        return RuntimeChoice(selected, "cpu")
    return RuntimeChoice(selected, _name(detect_device(selected, device)) if is_local else device)


def _choose_openvino(backend: Backend, device: DeviceChoice) -> RuntimeChoice:
    if device == "gpu":
        raise UsageError("int8 is computed on CPUs only", location=OPTION, hint="Omit the option, or --precision.")
    if backend != "tensorflow":
        message = f"int8 quantizes a frozen graph of TensorFlow, not a model of {backend}"
        raise UsageError(message, location="--backend", hint="Use --backend tensorflow.")
    check_installed("--precision", OPENVINO)
    return RuntimeChoice(backend, "cpu", is_int8=True)


def choose_batch_size(device: str) -> int:
    """Returns the number of images per forward pass that `--batch-size auto` stands for on a kind of device."""
    return BATCH_SIZE if device == "cpu" else ACCELERATOR_BATCH_SIZE


def _name(device: Device) -> DeviceChoice:
    return "auto" if device.kind == "tpu" else device.kind


def load_extractor(
    path: Path, table_config: FeatureTableConfig, device: DeviceChoice = "auto", batch_size: int | None = None
) -> LoadedExtractor:
    """Loads an extractor's file for the backend of this process. `pixels` needs no file.

    Args:
        path: A frozen graph or a quantized network, which run on the processor, or a `.keras` file.
        table_config: Config of the features.
        device: Device of a compiled model.
        batch_size: Number of images for which a model is compiled first; None for that of the first batch.

    Raises:
        CorruptFileError: The file is missing or corrupt.
        UsageError: There is no GPU, or TensorFlow for a frozen graph or OpenVINO for a quantized network is missing.
    """
    if table_config.extractor == PIXELS:
        return PixelModel((table_config.height, table_config.width, 3))
    if path.suffix == ".pb":
        return load_shared_frozen_graph(path, table_config.precision)
    if path.suffix == ".openvino":
        return load_shared_quantized_model(path)
    from features.extractors.compiled_model import compile_extractor
    from features.extractors.keras_file import load_model

    function = build_stored_function(load_model(path, table_config.extractor), table_config)
    compiled = compile_extractor(function, table_config.precision, device)
    compiled.batch_sizes = frozenset(() if batch_size is None else (batch_size,))
    return compiled


def load_shared_extractor(
    path: Path, table_config: FeatureTableConfig, device: DeviceChoice = "auto", batch_size: int | None = None
) -> LoadedExtractor:
    """Loads an extractor once per process, as `load_extractor`; threads share it."""
    with _sharing:
        return _load_last(path, table_config, device, batch_size)


_load_last = lru_cache(maxsize=1)(load_extractor)


def read_frozen_graph(path: Path, table_config: FeatureTableConfig) -> bytes:
    """Returns an extractor's file as a frozen graph, with float32 features or uint8 pixels. Requires TensorFlow.

    UsageError if the extractor is quantized: its int8 arithmetic is OpenVINO's.
    """
    if path.suffix == ".openvino":
        message = "the extractor is quantized to int8, and a TensorFlow graph cannot compute it"
        hint = "Train on features of --precision float32."
        raise UsageError(message, location=str(path), hint=hint)
    if path.suffix == ".pb":
        return path.read_bytes()
    from features.extractors.keras_file import load_model

    if table_config.extractor == PIXELS:
        function = build_pixel_function()
    else:
        model = load_model(path, table_config.extractor)
        function = replace(build_stored_function(model, table_config), dtype="float32")
    dtype = Resizer.from_table_config(table_config).dtype
    return freeze(function, table_config.height, table_config.width, dtype)


def build_stored_function(model: Any, table_config: FeatureTableConfig) -> ModelFunction:
    """Returns the feature function of a table's stored model. Its features have the table's dtype if it is float16."""
    preprocess = choose_input_preprocessing(table_config)
    size = (table_config.height, table_config.width)
    function = build_model_function(model, preprocess, table_config.pooling, *size)
    return replace(function, dtype="float16") if table_config.dtype == "float16" else function
