"""Benchmark: CPU time of a training step of `merge` with LSTM and GRU.

    python benchmarks/cells.py [--rounds 7] [--steps 10] [--vocab-size 1748]

The models are those of benchmarks/experiments/flickr8k_cells.yaml. A step has 128 captions of 13 tokens and pooled
features of 1,280 values. The models take turns, on one TensorFlow thread. CPU time does not count the time of other
work on the machine.
"""

import argparse
import os
import time
from pathlib import Path
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from timing import Work, machine, measure_in_turn

from features.runtime.keras_settings import apply_settings, keras
from schemas.table_config import SPECIAL_TOKENS
from trainer.models.model_specs import model_spec
from workflows.experiments.config import read_experiment_config

BATCH, TOKENS, CHANNELS = 128, 13, 1280
_EXPERIMENT = Path(__file__).parent / "experiments" / "flickr8k_cells.yaml"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="rounds in which each model has a turn")
    parser.add_argument("--steps", type=int, default=10, help="steps per turn")
    parser.add_argument("--vocab-size", type=int, default=1748, help="size of the vocabulary")
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    apply_settings()
    models = build_models(options.vocab_size)
    works = {name: prepare(model, options.vocab_size, options.steps) for name, model in models.items()}
    rates = measure_in_turn(works, options.rounds)
    print("| cell | weights | CPU time per step, median | range |\n|---|---:|---:|---|")
    for name, seen in rates.items():
        shown, fastest, slowest = (1000 / rate for rate in (median(seen), max(seen), min(seen)))
        weights = models[name].count_params()
        print(f"| `{name}` | {weights:,} | {shown:.1f} ms | {fastest:.1f}–{slowest:.1f} ms |")
    print(f"\n{machine()}")


def build_models(vocabulary: int) -> dict[str, keras.Model]:
    """Returns the untrained models of the experiment by name."""
    experiment = read_experiment_config(_EXPERIMENT)
    models = {}
    for name in experiment.models:
        settings = experiment.training_task.settings(experiment.training_options(name, seed=0))
        spec = model_spec(settings["model"])
        config = spec.config(**{key: value for key, value in settings.items() if key in spec.config.model_fields})
        models[name] = spec.build(config, vocabulary, (CHANNELS,))
    return models


def prepare(model: keras.Model, vocabulary: int, steps: int) -> Work:
    """Returns a function that trains a model on one batch and returns its steps per second of CPU time."""
    random = np.random.default_rng(0)
    features = tf.constant(random.normal(size=(BATCH, CHANNELS)).astype(np.float32))
    tokens = tf.constant(random.integers(len(SPECIAL_TOKENS), vocabulary, (BATCH, TOKENS + 1)).astype(np.int32))
    batch = {"features": features, "tokens": tokens[:, :-1], "image": tf.range(BATCH)}
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            logits = model(batch, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tokens[:, 1:], logits)
            loss = tf.reduce_mean(losses)
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

    def work() -> float:
        start = time.process_time()
        for _ in range(steps):
            step()
        return steps / (time.process_time() - start)

    return work


if __name__ == "__main__":
    main()
