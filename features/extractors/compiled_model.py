"""Compiles extractors with the backend of Keras: JAX or PyTorch on any device, TensorFlow on a GPU.

    model → precision, folded normalizations, postponed poolings → compiled: put pixels on the device → compute → fetch

On processors, TensorFlow runs frozen graphs instead, whose rows are bit-identical in every batch. Compiled models need
no TensorFlow. Their features agree with those of frozen graphs within rounding.
"""

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from dataclasses import replace
from functools import cache
from itertools import chain
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.extractors.devices import detect_device
from features.extractors.output_layers import ModelFunction
from features.images.resize import Pixels
from features.runtime.keras_settings import keras, ops
from features.runtime.numerics import Device, Runtime
from schemas.choices import DeviceChoice, Precision

# While an accelerator computes one batch, the next one is copied to it.
_ACCELERATOR_CALLS = 2


class CompiledModel(ABC):
    """A model on a device that is compiled once per batch size.

    `predict` pads a batch with zeros to the smallest size of `batch_sizes` and of the compiled ones, because compiling
    takes far longer than computing. A size that does not fit into memory is not used again.
    """

    numerics: str  # numerics class of the features

    def __init__(self, function: ModelFunction, device: Device) -> None:
        self.device = device
        self.shape = function.shape
        self.parallel_calls = 1 if device.kind == "cpu" else _ACCELERATOR_CALLS
        self.batch_sizes: frozenset[int] = frozenset()
        self._compiling = Lock()
        self._compiled_sizes: frozenset[int] = frozenset()

    def predict(self, pixels: Pixels) -> NDArray[Any]:
        """Returns features [N, ...] of pixels [N, H, W, 3], values 0…255."""
        count = len(pixels)
        size = min((size for size in self.batch_sizes if size >= count), default=count)
        if size > count:
            pixels = np.concatenate([pixels, np.zeros((size - count, *pixels.shape[1:]), pixels.dtype)])
        try:
            features = self._run(pixels)
        except Exception:
            self.batch_sizes -= {size}
            if size > count:  # The padded batch may not fit into memory.
                return self.predict(pixels[:count])
            raise
        self.batch_sizes |= {size}
        return features[:count]

    def _run(self, pixels: Pixels) -> NDArray[Any]:
        """Threads that share the model compile a batch size once."""
        if len(pixels) in self._compiled_sizes:
            return self.fetch(self.compute(self.put(pixels)))
        with self._compiling:
            features = self.fetch(self.compute(self.put(pixels)))
            self._compiled_sizes |= {len(pixels)}
        return features

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

    def __init__(self, function: ModelFunction, device: Device) -> None:
        super().__init__(function, device)
        import jax

        self._jax: Any = jax
        self._device = jax.devices(device.kind)[0]
        variables = function.model.variables

        def stateless(values: Any, pixels: Any) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return function(pixels)

        self._compiled = jax.jit(stateless)
        self._values = jax.device_put([variable.value for variable in variables], self._device)

    def put(self, pixels: Pixels) -> Any:
        return self._jax.device_put(pixels, self._device)

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

    def __init__(self, function: ModelFunction, device: Device) -> None:
        super().__init__(function, device)
        import torch

        class Module(torch.nn.Module):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__()
                self.model = function.model

            def forward(self, pixels: Any) -> Any:
                return function(pixels)

        self._torch = torch
        self._is_gpu = device.kind == "gpu"
        self._device = torch.device("cuda" if self._is_gpu else "cpu")
        self._module = Module().eval().to(self._device)
        self._graphs: dict[tuple[int, ...], Any] = {}

    def put(self, pixels: Pixels) -> Any:
        tensor = self._torch.from_numpy(pixels)
        return tensor.pin_memory().to(self._device, non_blocking=True) if self._is_gpu else tensor

    def compute(self, pixels: Any) -> Any:
        shape = tuple(pixels.shape)
        if shape not in self._graphs:
            with self._torch.no_grad(), keras.device("gpu" if self._is_gpu else "cpu"):
                graph = self._torch.export.export(self._module, (pixels,), strict=False).module()
            self._graphs[shape] = self._torch.compile(graph) if self._is_gpu else graph
        with self._torch.inference_mode():
            return self._graphs[shape](pixels)

    def wait(self, features: Any) -> None:
        if self._is_gpu:
            self._torch.cuda.synchronize(self._device)

    def fetch(self, features: Any) -> NDArray[Any]:
        values: NDArray[Any] = features.cpu().numpy()
        return values


class TensorFlowModel(CompiledModel):
    """A model on TensorFlow. XLA compiles it for GPUs only, because on CPUs XLA is slower."""

    def __init__(self, function: ModelFunction, device: Device) -> None:
        super().__init__(function, device)
        import tensorflow as tf

        self._tf = tf
        self._device = f"{device.kind.upper()}:0"
        self._compiled = tf.function(function, jit_compile=device.kind == "gpu")

    def put(self, pixels: Pixels) -> Any:
        with self._tf.device(self._device):
            return self._tf.constant(pixels)

    def compute(self, pixels: Any) -> Any:
        with self._tf.device(self._device):
            return self._compiled(pixels)

    def wait(self, features: Any) -> None:
        self._tf.test.experimental.sync_devices()

    def fetch(self, features: Any) -> NDArray[Any]:
        values: NDArray[Any] = features.numpy()
        return values


def compile_extractor(function: ModelFunction, precision: Precision, device: DeviceChoice = "auto") -> CompiledModel:
    """Compiles an extractor that was built on the backend of Keras, with its weights.

    The dtype of `function` is that of the features that leave the device: float16 halves the transfer.

    Raises:
        UsageError: The device is `gpu`, and the backend has no GPU in this process.
    """
    backend = keras.backend.backend()
    models: dict[str, type[JaxModel | TorchModel | TensorFlowModel]]
    models = {"jax": JaxModel, "torch": TorchModel, "tensorflow": TensorFlowModel}
    optimized = replace(function, model=optimize_for_inference(function.model, precision))
    compiled = models[backend](optimized, detect_device(backend, device))
    compiled.numerics = Runtime(compiled.device, backend, precision).numerics
    return compiled


def optimize_for_inference(model: Any, precision: Precision) -> Any:
    """Returns a copy of a `keras.Model` with equal outputs in inference. The copy cannot be trained.

    Unfolded, a normalization reads and writes the output of its convolution once more. TensorFlow's graph optimizer
    folds it; other backends have no such optimizer. Average pooling and a 1×1 convolution are linear and commute:
    InceptionV3 then pools up to ten times fewer channels.

    Args:
        model: A functional `keras.Model`, built, with its weights. It is not changed.
        precision: Arithmetic of its layers. Nested models keep the precision that they were built with.
    """
    policy = "mixed_bfloat16" if precision == "bfloat16" else precision  # weights stay float32; layers cast them
    followers = _find_followers(model)
    folded = {layer.name: after for layer, after in followers if _is_foldable(layer, after)}
    postponed = {after.name: layer for layer, after in followers if _is_postponable(layer, after)}
    skipped = {layer.name for layer in (*folded.values(), *postponed.values())}

    @cache
    def copy_layer(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer):
            return layer
        changed = {"dtype": policy} | ({"use_bias": True} if layer.name in folded else {})
        return type(layer).from_config(layer.get_config() | changed)

    def call_layer(layer: Any, *inputs: Any, **options: Any) -> Any:
        if layer.name in skipped:
            return inputs[0]
        output = layer(*inputs, **options)
        return copy_layer(postponed[layer.name])(output) if layer.name in postponed else output

    copy = keras.models.clone_model(model, clone_function=copy_layer, call_function=call_layer)
    for layer in model.layers:
        if layer.weights and layer.name not in skipped:
            weights = _fold(layer, folded[layer.name]) if layer.name in folded else layer.get_weights()
            copy.get_layer(layer.name).set_weights(weights)
    return copy


def _find_followers(model: Any) -> list[tuple[Any, Any]]:
    """Returns the pairs of a layer and the only consumer of its output, if both are called once."""
    nodes = list(chain.from_iterable(model._nodes_by_depth.values()))
    calls = Counter(node.operation.name for node in nodes)
    consumers = defaultdict[int, list[Any]](list)
    for node in nodes:
        for tensor in node.input_tensors:
            consumers[id(tensor)].append(node.operation)
    followers = []
    for node in nodes:
        layers = [layer for tensor in node.output_tensors for layer in consumers[id(tensor)]]
        if len(layers) == 1 and calls[node.operation.name] == calls[layers[0].name] == 1:
            followers.append((node.operation, layers[0]))
    return followers


def _is_foldable(layer: Any, follower: Any) -> bool:
    """Returns whether the follower is a normalization of a linear convolution."""
    is_convolution = type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D) and _is_linear(layer)
    return is_convolution and type(follower) is keras.layers.BatchNormalization and follower.axis in (-1, 3)


def _is_postponable(layer: Any, follower: Any) -> bool:
    """Returns whether the layer is an average pooling before a 1×1 convolution to fewer channels."""
    is_pooling = type(layer) is keras.layers.AveragePooling2D and layer.strides == (1, 1)
    if not is_pooling or layer.data_format != "channels_last" or type(follower) is not keras.layers.Conv2D:
        return False
    is_pointwise = follower.kernel_size == follower.strides == (1, 1) and _is_linear(follower)
    return is_pointwise and follower.filters < layer.output.shape[-1]


def _is_linear(layer: Any) -> bool:
    return layer.activation is keras.activations.linear and layer.data_format == "channels_last"


def _fold(layer: Any, normalization: Any) -> list[NDArray[np.float32]]:
    """Returns the kernel and bias of a convolution that is equal to a convolution and its normalization."""
    to_numpy = ops.convert_to_numpy
    kernel = to_numpy(layer.kernel)
    bias = to_numpy(layer.bias) if layer.use_bias else np.float32(0)
    scale = 1 / np.sqrt(to_numpy(normalization.moving_variance) + np.float32(normalization.epsilon))
    if normalization.scale:
        scale = scale * to_numpy(normalization.gamma)
    offset = (bias - to_numpy(normalization.moving_mean)) * scale
    if normalization.center:
        offset = offset + to_numpy(normalization.beta)
    # A depthwise kernel has its channels on the last two axes, an ordinary kernel on the last one.
    channels = kernel.shape[2:] if kernel.shape[-1] != len(scale) else kernel.shape[-1:]
    return [kernel * scale.reshape(channels), offset]
