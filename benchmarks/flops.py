"""Counts the floating-point operations of a Keras model: two per product, as in a matrix product."""

import math
from typing import Any


def count_flops(network: Any) -> int:
    """Returns the operations per image of a built `keras.Model`: convolutions and dense layers only."""
    return sum(2 * _products(layer) for layer in network.layers)


def _products(layer: Any) -> int:
    if hasattr(layer, "layers"):
        return sum(map(_products, layer.layers))
    kernels = [weight for weight in layer.weights if weight.path.endswith("kernel")]
    if not kernels:
        return 0
    positions = math.prod(layer.output.shape[1:-1])
    return int(positions * sum(math.prod(kernel.shape) for kernel in kernels))
