"""Compiles extractors for accelerators with the backend of Keras: TensorFlow, JAX or PyTorch.

Feature tables are computed with frozen graphs, whose rows are bit-identical in every batch. Compiled models need no
TensorFlow; their features agree within rounding.

pixels → put on the device → compute → fetch
"""

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.extractors.frozen_graph import list_devices
from features.extractors.inference_model import optimize_for_inference
from features.extractors.output_layers import ModelFunction
from features.images.resize import Pixels
from features.runtime.keras_settings import keras
from features.runtime.numerics import Device, detect_cpu, format_numerics_class
from schemas.choices import Precision


class CompiledModel(ABC):
    """A model that is compiled once per batch size.

    `predict` pads a batch with zeros to the smallest compiled size, because compiling takes far longer than computing.

    Attributes:
        device: The device that computes.
        numerics: Numerics class of the features.
    """

    device: Device
    numerics: str

    def __init__(self) -> None:
        self._sizes: frozenset[int] = frozenset()

    def predict(self, pixels: Pixels) -> NDArray[Any]:
        """Returns features [N, ...] of pixels [N, H, W, 3], values 0…255."""
        count = len(pixels)
        size = min((size for size in self._sizes if size >= count), default=count)
        if size > count:
            pixels = np.concatenate([pixels, np.zeros((size - count, *pixels.shape[1:]), pixels.dtype)])
        features = self.fetch(self.compute(self.put(pixels)))
        self._sizes |= {size}  # only a size that fits into memory is used again
        return features[:count]

    @abstractmethod
    def put(self, pixels: Pixels) -> Any:
        """Copies pixels to the device."""

    @abstractmethod
    def compute(self, pixels: Any) -> Any:
        """Starts to compute features on the device and returns them; they may not be ready yet."""

    @abstractmethod
    def wait(self, features: Any) -> None:
        """Blocks until features are computed."""

    @abstractmethod
    def fetch(self, features: Any) -> NDArray[Any]:
        """Copies features from the device."""


class JaxModel(CompiledModel):
    """A model on JAX. Its weights are arguments of the compiled function rather than constants."""

    def __init__(self, function: ModelFunction) -> None:
        super().__init__()
        import jax

        self._jax: Any = jax
        variables = function.model.variables

        def stateless(values: Any, pixels: Any) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return function(pixels)

        self._compiled = jax.jit(stateless)
        self._values = [variable.value for variable in variables]
        device = jax.devices()[0]
        self.device = detect_cpu() if device.platform == "cpu" else Device(device.platform, device.device_kind)

    def put(self, pixels: Pixels) -> Any:
        return self._jax.device_put(pixels)

    def compute(self, pixels: Any) -> Any:
        return self._compiled(self._values, pixels)

    def wait(self, features: Any) -> None:
        self._jax.block_until_ready(features)

    def fetch(self, features: Any) -> NDArray[Any]:
        return np.asarray(features)


class TorchModel(CompiledModel):
    """A model on PyTorch: one exported graph per batch size. Pixels reach a GPU from pinned memory.

    Only graphs for a GPU are compiled further, because on a CPU compilation takes minutes.
    """

    def __init__(self, function: ModelFunction) -> None:
        super().__init__()
        import torch

        class Module(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.model = function.model

            def forward(self, pixels: Any) -> Any:
                return function(pixels)

        self._torch = torch
        self._module = Module().eval()
        self._graphs: dict[tuple[int, ...], Any] = {}
        self._device = keras.ops.zeros(()).device
        self._is_gpu = self._device.type == "cuda"
        self.device = Device("gpu", torch.cuda.get_device_name(self._device)) if self._is_gpu else detect_cpu()

    def put(self, pixels: Pixels) -> Any:
        tensor = self._torch.from_numpy(pixels)
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._is_gpu else tensor

    def compute(self, pixels: Any) -> Any:
        shape = tuple(pixels.shape)
        if shape not in self._graphs:
            self._graphs[shape] = self._export(pixels)
        with self._torch.inference_mode():
            return self._graphs[shape](pixels)

    def wait(self, features: Any) -> None:
        if self._is_gpu:
            self._torch.cuda.synchronize(self._device)

    def fetch(self, features: Any) -> NDArray[Any]:
        values: NDArray[Any] = features.cpu().numpy()
        return values

    def _export(self, pixels: Any) -> Any:
        with self._torch.no_grad():
            graph = self._torch.export.export(self._module, (pixels,), strict=False).module()
        return self._torch.compile(graph) if self._is_gpu else graph


class TensorFlowModel(CompiledModel):
    """A model on TensorFlow. XLA compiles it for GPUs only, because on CPUs XLA is slower."""

    def __init__(self, function: ModelFunction) -> None:
        super().__init__()
        import tensorflow as tf

        self._tf = tf
        gpus = tf.config.list_physical_devices("GPU")
        self._compiled = tf.function(function, jit_compile=bool(gpus))
        self.device = list_devices()[0]

    def put(self, pixels: Pixels) -> Any:
        return self._tf.constant(pixels)

    def compute(self, pixels: Any) -> Any:
        return self._compiled(pixels)

    def wait(self, features: Any) -> None:
        self._tf.test.experimental.sync_devices()

    def fetch(self, features: Any) -> NDArray[Any]:
        values: NDArray[Any] = features.numpy()
        return values


_BACKENDS: dict[str, type[JaxModel | TorchModel | TensorFlowModel]] = {
    "jax": JaxModel,
    "torch": TorchModel,
    "tensorflow": TensorFlowModel,
}


def compile_extractor(function: ModelFunction, precision: Precision) -> CompiledModel:
    """Compiles an extractor with the backend of Keras.

    Args:
        function: Built on that backend, with its weights. Its dtype is that of the features that leave the device:
            float16 halves the transfer.
        precision: Arithmetic of the model.
    """
    model = optimize_for_inference(function.model, precision)
    backend = keras.backend.backend()
    compiled = _BACKENDS[backend](replace(function, model=model))
    compiled.numerics = format_numerics_class(compiled.device, backend, precision)
    return compiled
