"""Seeded random weights whose features neither vanish nor explode on photographs.

Kernels are He-normal (He et al. 2015, arXiv:1502.01852), drawn for each variable from its own stream of the seed. The
network is then calibrated in one forward pass over seeded 1/f noise, whose spectrum is that of photographs (Field 1987,
doi:10.1364/JOSAA.4.002379): batch normalisation takes the means and variances that it sees; where a network has none,
each layer's kernel and bias are scaled to what its output showed, as in Salimans & Kingma 2016 (arXiv:1602.07868).
Either way the offset puts most activations on the linear side of the ReLU: a deep random network that rectifies half of
them is chaotic (Poole et al. 2016, arXiv:1606.05340) and forgets what it saw.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.extractors.application import Application, BuildOptions

RANDOM_VERSION = 1
_CALIBRATION_IMAGES = 16
_CALIBRATION_PIXELS = _CALIBRATION_IMAGES * 299 * 299
_OFFSET = 2.0
_SMALLEST_DEVIATION = 1e-6


def randomize(model: Any, seed: int, network: Application, form: BuildOptions) -> None:
    """Draw the weights of a model and calibrate it.

    Args:
        model: keras.Model. The network in its form.
        seed: int. At least 0.
        network: Application. Gives the preprocessing.
        form: Form. Gives the input size.
    """
    from features.runtime.keras_settings import keras

    _draw(model, seed)
    count = max(1, min(_CALIBRATION_IMAGES, _CALIBRATION_PIXELS // (form.height * form.width)))
    images = network.preprocess()(generate_noise_images(count, form.height, form.width, seed).astype(np.float32))
    normalizers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    dropouts = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    if normalizers:
        with _set(normalizers, "momentum", lambda _: 0.0), _set(dropouts, "rate", lambda _: 0.0):
            model(images, training=True)
    else:
        weighted = [layer for layer in model.layers if getattr(layer, "use_bias", False)]
        with _set(weighted, "activation", _calibrator):
            model(images, training=False)


def generate_noise_images(count: int, height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Seeded colour images with a 1/f amplitude spectrum, uint8 [count, height, width, 3]."""
    generator = np.random.Generator(np.random.PCG64([seed, RANDOM_VERSION]))
    rows, columns = np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width)
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1 / max(height, width)
    images = np.empty((count, height, width, 3), np.uint8)
    for image in images:
        grey = generator.standard_normal((height, width))
        contrast, brightness = generator.uniform(30, 75), generator.uniform(80, 160)
        for channel in range(3):
            white = 0.8 * grey + 0.6 * generator.standard_normal((height, width))
            pink = np.fft.irfft2(np.fft.rfft2(white) / frequency, s=(height, width))
            pink = (pink - pink.mean()) / pink.std()
            image[..., channel] = np.clip(pink * contrast + brightness, 0, 255)
    return images


def _draw(model: Any, seed: int) -> None:
    """Draw the kernels; their scale matters little, for what follows each layer is calibrated."""
    for number, variable in enumerate(model.weights):
        if variable.path.endswith("beta"):
            variable.assign(np.full(variable.shape, _OFFSET, np.float32))
        if variable.path.endswith("kernel"):
            generator = np.random.Generator(np.random.PCG64([seed, RANDOM_VERSION, number]))
            deviation = np.sqrt(2 / np.prod(variable.shape[:-1]))
            variable.assign(generator.standard_normal(variable.shape, dtype=np.float32) * np.float32(deviation))
    for layer in model.layers:
        if type(layer).__name__ == "LayerScale":  # ConvNeXt's, which begins at 1e-6, as if there were no blocks
            layer.gamma.assign(np.ones(layer.gamma.shape, np.float32))


@contextlib.contextmanager
def _set(layers: list[Any], name: str, value: Callable[[Any], Any]) -> Iterator[None]:
    """An attribute of layers, set for a while."""
    before = [getattr(layer, name) for layer in layers]
    for layer in layers:
        setattr(layer, name, value(layer))
    try:
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            setattr(layer, name, old)


def _calibrator(layer: Any) -> Callable[[Any], Any]:
    """An activation that first makes each channel of the layer's output of unit variance around the offset."""
    from features.runtime.keras_settings import keras

    activation = layer.activation
    is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)

    def calibrated(output: Any) -> Any:
        values = np.asarray(output).reshape(-1, output.shape[-1])
        mean, deviation = values.mean(axis=0), np.maximum(values.std(axis=0), _SMALLEST_DEVIATION)
        divisor = deviation.reshape(layer.kernel.shape[2:]) if is_depthwise else deviation
        layer.kernel.assign(np.asarray(layer.kernel) / divisor)
        layer.bias.assign((np.asarray(layer.bias) - mean) / deviation + np.float32(_OFFSET))
        return activation((output - mean) / deviation + np.float32(_OFFSET))

    return calibrated
