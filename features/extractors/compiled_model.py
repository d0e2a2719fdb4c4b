"""Compiled networks: a Keras network as one function of whichever backend Keras runs on, for accelerators.

Tables are made with frozen networks, whose bits are the same in every batch; these run where TensorFlow is not, on JAX
or PyTorch too, and promise features to within rounding.

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
from features.runtime.numerics import Device, detect_cpu, format_numerics_class
from schemas.choices import Precision


class CompiledModel(ABC):
    """A network compiled for one batch size after another, each when it is first met.

    A batch is filled up with zeros to the smallest size that is compiled already, for compiling takes far longer than
    computing does.

    Attributes:
        device: What it runs on.
        numerics: Numerics class of its features.
    """

    device: Device
    numerics: str

    def __init__(self) -> None:
        self._sizes: frozenset[int] = frozenset()

    def predict(self, pixels: Pixels) -> NDArray[Any]:
        """Features [N, ...] of pixels [N, H, W, 3], values 0…255."""
        count = len(pixels)
        size = min((size for size in self._sizes if size >= count), default=count)
        if size > count:
            pixels = np.concatenate([pixels, np.zeros((size - count, *pixels.shape[1:]), pixels.dtype)])
        features = self.fetch(self.compute(self.put(pixels)))
        self._sizes |= {size}  # now that it did not run out of memory
        return features[:count]

    @abstractmethod
    def put(self, pixels: Pixels) -> Any:
        """The pixels on the device."""

    @abstractmethod
    def compute(self, pixels: Any) -> Any:
        """Features, on the device, of pixels that are there; it may be at work on them yet."""

    @abstractmethod
    def wait(self, features: Any) -> None:
        """Return when features are computed; they stay on the device."""

    @abstractmethod
    def fetch(self, features: Any) -> NDArray[Any]:
        """Features from the device."""


class JaxModel(CompiledModel):
    """A network on JAX, its weights arguments of the compiled function rather than constants in it."""

    def __init__(self, function: ModelFunction) -> None:
        super().__init__()
        import jax

        from features.runtime.keras_settings import keras

        self._jax: Any = jax
        variables = function.network.variables

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
    """A network on PyTorch: one graph a batch size, free of Keras' Python; pixels go to a GPU from pinned memory.

    Only a GPU's graph is compiled further: on a processor that takes minutes.
    """

    def __init__(self, function: ModelFunction) -> None:
        super().__init__()
        import torch

        from features.runtime.keras_settings import keras

        class Module(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.network = function.network

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
            self._graphs[shape] = self._graph(pixels)
        with self._torch.inference_mode():
            return self._graphs[shape](pixels)

    def wait(self, features: Any) -> None:
        if self._is_gpu:
            self._torch.cuda.synchronize(self._device)

    def fetch(self, features: Any) -> NDArray[Any]:
        values: NDArray[Any] = features.cpu().numpy()
        return values

    def _graph(self, pixels: Any) -> Any:
        with self._torch.no_grad():
            graph = self._torch.export.export(self._module, (pixels,), strict=False).module()
        return self._torch.compile(graph) if self._is_gpu else graph


class TensorFlowModel(CompiledModel):
    """A network on TensorFlow; compiled by XLA where there is a GPU, which on processors is the slower one."""

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


def compile_model(function: ModelFunction, precision: Precision) -> CompiledModel:
    """A network compiled by Keras' backend.

    Args:
        function: ModelFunction. Built on that backend, with its weights. Features of its dtype are what comes from
            the device, so float16 is half the way.
        precision: str. Arithmetic of the network.
    """
    from features.runtime.keras_settings import keras

    network = optimize_for_inference(function.network, precision)
    backend = keras.backend.backend()
    compiled = _BACKENDS[backend](replace(function, network=network))
    compiled.numerics = format_numerics_class(compiled.device, backend, precision)
    return compiled
