"""Benchmark: greedy captions per second from stored features, capt in batches and the reference notebooks' loop.

    python benchmarks/captioning.py [--images 64] [--most 20] [--rounds 5]

Both read the features of the images, generate the most probable caption of each and join its words. The model is soft
attention with embedding size 256, 512 units, 64 locations and 5,000 words. capt generates as `capt evaluate` does. The
notebook generates one caption after another, with one eager call per word, until the end token.

First, the model is overfitted to one random caption per image, with the mean length of Flickr8k. Then both use its
weights. The notebook's decoder forgets its state; here it keeps it. So both must generate the training captions, or the
program fails.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from notebook_captioner import Encoder, StatefulDecoder, caption
from numpy.typing import NDArray
from synthetic_tables import feature_table, save_arrays
from timing import Work, measure_in_turn, print_rounds, ratio

from features.store import FeatureTable, create_store
from features.text.vocabulary import detokenize
from schemas.table_config import END, PAD, SPECIAL_TOKENS, START
from trainer.config import parse_options
from trainer.decoding.factory import make_decoder
from trainer.decoding.generation import GenerationConfig
from trainer.models.captioner import Captioner
from trainer.models.losses import MaskedCrossEntropy
from trainer.models.model_specs import model_spec

VOCABULARY = 5000
MEAN_WORDS = 10.8  # of Flickr8k's captions
OURS, PEER = "ours", "notebook"
_WORDS = [*SPECIAL_TOKENS, *(f"word{number}" for number in range(len(SPECIAL_TOKENS), VOCABULARY))]
_EPOCHS, _ATTEMPTS = 20, 15


def main() -> None:
    """Measures and prints."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        table = feature_table(create_store(Path(work) / "store"), [str(number) for number in range(options.images)])
        arrays = save_arrays(Path(work) / "arrays", table)
        captions = draw_captions(options.images, options.most)
        model = overfit(table, captions)
        works = {OURS: ours(model, table, options.most), PEER: notebook(model, arrays, options.most)}
        for name, generate in works.items():
            if generate() != list(map(join_words, captions)):
                raise SystemExit(f"{name} generates other captions than the training captions")
        rates = measure_in_turn({name: _rate(generate) for name, generate in works.items()}, options.rounds)
    lengths = list(map(len, captions))
    print_rounds("captions", rates, [ratio(rates, OURS, PEER)], words=lengths)
    print(f"captions of {statistics.mean(lengths):.1f} words, {min(lengths)} to {max(lengths)}")


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="number of images, and batch size of ours")
    parser.add_argument("--most", type=int, default=20, help="maximum number of words")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", help="directory for tables and files; default: the system's temporary directory")
    return parser.parse_args()


def _rate(generate: Callable[[], Sequence[str]]) -> Work:
    def work() -> float:
        started = time.perf_counter()
        return len(generate()) / (time.perf_counter() - started)

    return work


# === Captions and model ===


def draw_captions(count: int, most: int) -> list[NDArray[np.int32]]:
    """Returns captions as token IDs with Flickr8k's mean length and Zipf-distributed words."""
    random = np.random.default_rng(0)
    ids = np.arange(len(SPECIAL_TOKENS), VOCABULARY, dtype=np.int32)
    weights = 1 / (np.arange(len(ids)) + 2.7)
    lengths = np.clip(random.poisson(MEAN_WORDS, count), 3, most - 1)
    return [random.choice(ids, size=length, p=weights / weights.sum()) for length in lengths]


def overfit(table: FeatureTable, captions: Sequence[NDArray[np.int32]]) -> Captioner:
    """Returns a model that generates the given caption for each image of a table, in the order of the keys."""
    spec, features = model_spec("soft_attention"), table.read(_rows(table))
    keras.utils.set_random_seed(0)
    model = spec.build(parse_options(spec.config, {})[1], VOCABULARY, table.shape)
    model.adapt(features, np.zeros(VOCABULARY, np.int64))
    model.compile(optimizer=keras.optimizers.Adam(3e-3, global_clipnorm=5.0), loss=MaskedCrossEntropy())
    tokens = np.full((len(captions), max(map(len, captions)) + 2), PAD, np.int32)
    for row, words in zip(tokens, captions, strict=True):
        row[: len(words) + 2] = [START, *words, END]
    inputs, targets = {"features": features, "tokens": tokens[:, :-1]}, tokens[:, 1:]
    decode, wanted = (
        make_decoder(model, GenerationConfig(max_new_tokens=tokens.shape[1])),
        list(map(join_words, captions)),
    )
    for _ in range(_ATTEMPTS):
        model.fit(inputs, targets, batch_size=len(captions), epochs=_EPOCHS, verbose=0)
        if list(map(join_words, decode(features).tokens[:, 0])) == wanted:
            return model
    raise SystemExit("the model did not learn its captions")


def join_words(ids: Iterable[int]) -> str:
    return detokenize(ids, _WORDS)


# === Measured functions ===


def ours(model: Captioner, table: FeatureTable, most: int) -> Callable[[], list[str]]:
    """Returns a function that captions all images of a table in one batch, in the order of the keys."""
    rows, decode = _rows(table), make_decoder(model, GenerationConfig(max_new_tokens=most))
    return lambda: [join_words(ids) for ids in decode(table.read(rows)).tokens[:, 0]]


def notebook(model: Captioner, arrays: Sequence[str], most: int) -> Callable[[], list[str]]:
    """Returns a function that captions one image after another with our model's weights."""
    size, units = model.config.embedding_dim, model.config.units
    encoder, decoder = Encoder(size), StatefulDecoder(VOCABULARY, size, units)
    caption(encoder, decoder, arrays[0], _WORDS, START, END, 1)  # builds them
    _copy_weights(model, encoder, decoder)
    return lambda: [" ".join(caption(encoder, decoder, path, _WORDS, START, END, most)[0]) for path in arrays]


def _copy_weights(model: Captioner, encoder: Encoder, decoder: StatefulDecoder) -> None:
    looks = model.attention_layer
    kernel, bias = model.projection_layer.get_weights()
    mean, factor = model.feature_normalization.get_weights()  # which the notebook's encoder has in its own weights
    for theirs, weights in (
        (encoder.fc, [factor[:, np.newaxis] * kernel, bias - (mean * factor) @ kernel]),
        (decoder.embedding, model.embedding_layer.get_weights()),
        (decoder.attention.W1, [*looks.key_layer.get_weights(), np.zeros(looks.units, np.float32)]),
        (decoder.attention.W2, looks.query_layer.get_weights()),
        (decoder.attention.V, [*looks.score_layer.get_weights(), np.zeros(1, np.float32)]),
        (decoder.gru, model.recurrence.get_weights()),
        (decoder.fc1, model.output_layer.get_weights()),
        (decoder.fc2, model.logits_layer.get_weights()),
    ):
        theirs.set_weights(weights)


def _rows(table: FeatureTable) -> NDArray[np.int64]:
    """Returns the row numbers of a table in the order of the keys."""
    keys = sorted(key.tobytes() for keys in table.key_blocks() for key in keys)
    return table.lookup(np.frombuffer(b"".join(keys), np.uint8).reshape(len(keys), -1))


if __name__ == "__main__":
    main()
