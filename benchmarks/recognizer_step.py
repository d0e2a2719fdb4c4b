"""Benchmark: CPU time of a training step of the recognizer, as a whole and by parts.

    python benchmarks/recognizer_step.py [--filters 32,64,128] [--height 80] [--width 160] [--rounds 7] [--steps 3]

A step has 32 images in float32, and labels of five out of 26 characters. A part is computed with its gradients, on the
inputs that it has in the whole step. The parts take turns, on one TensorFlow thread. CPU time does not count the time
of other work on the machine, but is longer beside it. The product of two matrices is the peak of one core.
"""

import argparse
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from string import ascii_lowercase
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from timing import Rates, Work, machine, measure_in_turn

from features.runtime.keras_settings import apply_settings, keras, ops
from schemas.choices import LanguageModel
from trainer.config import parse_recognizer
from trainer.data.augmentation import Augmentation
from trainer.models.configs import RecognizerConfig
from trainer.models.recognizer import Convolution, Recognizer
from trainer.models.recognizer_heads import ace_losses, ctc_losses, position_losses
from trainer.training.compile_model import compile_model

LABEL_LENGTH = 5
STEPS = 1000  # of the schedule
MATRIX = 1024
WHOLE: dict[LanguageModel, str] = {"words": "whole step, `words`", "none": "whole step, `none`"}
PEAK = "matrix product"


@dataclass(frozen=True)
class Part:
    """A part of a step, which is computed with its gradients.

    Args:
        compute: Computes a scalar from the inputs.
        inputs: Array.
        variables: Trainable variables.
    """

    compute: Callable[[Any], Any]
    inputs: Any
    variables: tuple[Any, ...] = ()

    def prepare(self) -> Callable[[], Any]:
        """Returns a function that computes the gradients."""
        inputs, variables = tf.constant(self.inputs), [one.value for one in self.variables]

        @tf.function
        def run() -> Any:
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                loss = self.compute(inputs)
            return tape.gradient(loss, [inputs, *variables])

        return run


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--filters", default="32,64,128")
    parser.add_argument("--height", type=int, default=80)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=7, help="rounds in which each part has a turn")
    parser.add_argument("--steps", type=int, default=3, help="steps per turn")
    given = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    apply_settings()
    training, _ = parse_recognizer("default", {"precision": "float32", "epochs": 1})
    filters = tuple(map(int, given.filters.split(",")))
    models = {name: build(name, filters, (given.height, given.width), training) for name in WHOLE}
    works = list_works(models, training, (given.height, given.width), given.steps)
    rates = measure_in_turn(works, given.rounds)
    print_times(rates, count_stage_flops(models["words"], (given.height, given.width)), training.batch_size)


def build(name: LanguageModel, filters: tuple[int, ...], size: tuple[int, int], training: Any) -> Recognizer:
    """Returns the compiled recognizer."""
    config = RecognizerConfig(
        filters=filters, charset=ascii_lowercase, max_label_length=LABEL_LENGTH, language_model=name
    )
    model = Recognizer(config)
    model.build((None, *size, 3))
    compile_model(model, training, STEPS)
    return model


def list_works(
    models: dict[LanguageModel, Recognizer], training: Any, size: tuple[int, int], steps: int
) -> dict[str, Work]:
    """Returns the functions that measure the whole step and its parts, by name."""
    rng, batch = np.random.default_rng(0), training.batch_size
    images = rng.integers(0, 256, (batch, *size, 3)).astype(np.uint8)
    labels = rng.integers(1, 27, (batch, LABEL_LENGTH)).astype(np.int32)
    augmentation = Augmentation.from_config(training)
    assert augmentation is not None
    augment = tf.function(augmentation.for_epoch(0))
    pixels, number = tf.constant(images), tf.constant(1, tf.int64)
    works = {WHOLE[name]: _time(partial(one.train_on_batch, images, labels), steps) for name, one in models.items()}
    works |= {name: _time(part.prepare(), steps) for name, part in list_parts(models, images, labels).items()}
    works["augmentation"] = _time(lambda: augment(pixels, number), steps)
    matrix = tf.constant(rng.normal(size=(MATRIX, MATRIX)).astype(np.float32))
    works[PEAK] = _time(tf.function(lambda: tf.matmul(matrix, matrix)), 10 * steps)
    return works


def list_parts(models: dict[LanguageModel, Recognizer], images: Any, labels: Any) -> dict[str, Part]:
    """Returns the parts of a step on a batch, by name."""
    model, plain = models["words"], models["none"]
    values, parts = (1 - images / 255).astype(np.float32), {}
    for number, layers in enumerate(list_stages(model), 1):
        stage = keras.Sequential(layers)
        parts[f"stage {number}"] = _total(stage, values)
        values = np.asarray(stage(values))
    columns = np.asarray(model.column_attention(values))
    outputs = {head: np.asarray(logits) for head, logits in model(images).items()}
    return parts | {
        "GRU": _total(model.context, columns),
        "convolution in place of the GRU": _total(plain.context, columns),
        "CTC loss": Part(lambda logits: ops.sum(ctc_losses(labels, logits)), outputs["ctc"]),
        "attention loss": Part(lambda logits: ops.sum(position_losses(labels, logits)), outputs["attention"]),
        "ACE": Part(lambda logits: ops.sum(ace_losses(labels, logits)), outputs["cells"]),
    }


def list_stages(model: Recognizer) -> list[list[Any]]:
    """Returns the layers of each stage, which begins with a convolution."""
    stages: list[list[Any]] = []
    for layer in model.trunk.layers:
        if isinstance(layer, Convolution):
            stages.append([])
        stages[-1].append(layer)
    return stages


def _total(layer: Any, values: Any) -> Part:
    return Part(lambda inputs: ops.sum(layer(inputs, training=True)), values, tuple(layer.trainable_weights))


def _time(run: Callable[[], Any], steps: int) -> Work:
    """Returns a function that runs a number of steps and returns their number per second of CPU time."""

    def work() -> float:
        start = time.process_time()
        for _ in range(steps):
            run()
        return steps / (time.process_time() - start)

    return work


def count_stage_flops(model: Recognizer, size: tuple[int, int]) -> dict[str, int]:
    """Returns the floating-point operations of the convolutions of each stage, per image: two per product."""
    flops, shape = {}, (None, *size, 3)
    for number, layers in enumerate(list_stages(model), 1):
        for layer in layers:
            shape = layer.compute_output_shape(shape)
        kernels = [weight for layer in layers for weight in layer.weights if weight.path.endswith("kernel")]
        flops[f"stage {number}"] = 2 * math.prod(shape[1:3]) * sum(math.prod(kernel.shape) for kernel in kernels)
    return flops


def print_times(rates: Rates, flops: dict[str, int], batch: int) -> None:
    """Prints the CPU time per step, its fraction of the whole step and of the peak that it reaches."""
    whole, peak = median(rates[WHOLE["words"]]), 2 * MATRIX**3 * median(rates[PEAK])
    flops = {**flops, **dict.fromkeys(WHOLE.values(), sum(flops.values()))}
    print(
        "| part | CPU time per step, median (range) | fraction of the step | GFLOP per image | fraction of the peak |"
    )
    print("|---|---|---:|---:|---:|")
    for name, seen in rates.items():
        if name == PEAK:
            continue
        shown, fastest, slowest = (1000 / rate for rate in (median(seen), max(seen), min(seen)))
        # The gradients of a convolution take two more.
        trained = 3 * flops[name] if name in flops else 0
        reached = f"{trained / 1e9:.3f} | {trained * batch * median(seen) / peak:.0%}" if trained else " | "
        time_per_step = f"{shown:.1f} ms ({fastest:.1f}–{slowest:.1f})"
        print(f"| {name} | {time_per_step} | {whole / median(seen):.1%} | {reached} |")
    for name in WHOLE.values():
        print(f"\n{name}: {batch * median(rates[name]):.1f} images/s")
    print(f"\nPeak, a matrix product: {peak / 1e9:.1f} GFLOP/s. {machine()}, one thread")


if __name__ == "__main__":
    main()
