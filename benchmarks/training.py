"""Captions a second in training, soft attention: ours beside the reference notebooks' unrolled train step.

    python benchmarks/training.py --text Flickr8k.token.txt     on the captions of a file, with its train list beside it
    python benchmarks/training.py                               on captions that it makes
    python benchmarks/training.py --words 16                    on captions of so many words: nobody pads anything

Both learn from the same captions of the same images, 64 a step, with a word's vector of 256, 512 units, features of
64×2048 reduced to 256, and 5,000 words, in float32. Ours is what `capt train captioner` does at every step, reading
included: an image's captions together, batches no longer than their longest caption. The notebook's pads all captions
to the longest of all and reads an image's features with each of them. The tables and files lie in the page cache. What
is timed begins once everything is compiled and the notebook's shuffle buffer is full.

`ours, an image a caption` is ours as with `captions_per_image: one`: as many images a step as the notebook's. Last it
says which share of our time training waited for input.
"""

import argparse
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from made_tables import catalog, feature_table, save_arrays, train_images
from notebook_captioner import Decoder, Encoder, reader, train_step
from numpy.typing import NDArray
from rounds import Work, in_turn, print_rounds, ratio
from tokenizing import made_captions

import capt
from features.store import Store, create_store
from schemas.table_config import PAD, START
from trainer.config import TrainingConfig, parse_options
from trainer.data.caption_batches import epoch_order
from trainer.data.caption_data import Captions, join_captions
from trainer.data.table_selection import select_tables
from trainer.models.model_specs import model_spec
from trainer.tasks.captioning_training import CaptioningTask
from trainer.tasks.train_captioner import captioner_metadata
from trainer.training.callbacks import StepCallback
from trainer.training.checkpoints import Progress

BATCH = 64
SIZES = {"embedding_dim": 256, "units": 512, "attention_dim": 512, "projection_dim": 256, "output_dim": 512}
VOCABULARY = 5000
CAPTIONS_AN_IMAGE = 5
DATASET = "flickr8k"
OURS, ONE, PEER = "ours", "ours, an image a caption", "notebook"
_TOKENS, _TRAIN_LIST = "Flickr8k.token.txt", "Flickr_8k.trainImages.txt"


def main() -> None:
    """Measure and print."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        directory = Path(work)
        text = options.text or write_captions(directory / "text", options.images, options.words)
        store = make_store(directory / "store", text, options.images)
        ours, one = Ours(store, directory / "ours", "all"), Ours(store, directory / "one", "one")
        peer = Notebook(ours.captions, save_arrays(directory / "arrays", ours.features))
        works = {name: _rate(trained, options.steps) for name, trained in ((OURS, ours), (ONE, one), (PEER, peer))}
        rates = in_turn(works, options.rounds)
        waited = ours.waited(options.steps)
    ratios = [ratio(rates, name, PEER) for name in (OURS, ONE)]
    positions = {OURS: ours.positions, ONE: one.positions, PEER: peer.positions}
    print_rounds("captions", rates, ratios, waited=waited, positions=positions)
    print(f"training waited for input {waited:.2%} of its time")
    print("positions a caption: " + ", ".join(f"{name} {words:.1f}" for name, words in positions.items()))


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="captions as `name.jpg#0<TAB>caption`; default: captions are made")
    parser.add_argument("--words", type=int, help="words of every caption that is made; default: as they come")
    parser.add_argument("--images", type=int, default=1664, help="images of the train split, a multiple of 64")
    parser.add_argument("--steps", type=int, default=8, help="steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", help="directory for tables and files; default: the system's for temporary files")
    return parser.parse_args()


def _rate(trained: Any, steps: int) -> Work:
    return lambda: steps * BATCH / trained.seconds(steps)


# === Captions and tables ===


def write_captions(directory: Path, images: int, words: int | None) -> Path:
    """A file of made captions in Flickr8k's layout, five an image, with the list that has all images in train."""
    captions = made_captions(images * CAPTIONS_AN_IMAGE, seed=0)
    captions = captions if words is None else _cut(captions, words)
    names = [f"{number:06d}.jpg" for number in range(images)]
    lines = [
        f"{names[number // CAPTIONS_AN_IMAGE]}#{number % CAPTIONS_AN_IMAGE}\t{caption}"
        for number, caption in enumerate(captions)
    ]
    directory.mkdir(parents=True)
    (directory / _TOKENS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (directory / _TRAIN_LIST).write_text("\n".join(names) + "\n", encoding="utf-8")
    return directory / _TOKENS


def _cut(captions: Sequence[str], words: int) -> list[str]:
    """As many captions, of so many words each."""
    told = cycle(re.findall(r"\w+", " ".join(captions)))
    return [" ".join(islice(told, words)) for _ in captions]


def make_store(path: Path, text: Path, images: int) -> Store:
    """A store with the captions, and with features of the first images of the train split."""
    store = create_store(path)
    capt.prepare_captions(store=str(path), dataset_type=DATASET, annotations=[str(text)], vocab_size=VOCABULARY)
    names = train_images(store.caption_tables()[0])[:images]
    feature_table(store, names)
    catalog(store, DATASET, names)
    return store


# === Who trains ===


class Ours:
    """Steps as `capt train captioner` takes them.

    Args:
        store: Store. The captions and features.
        root: Path. The run directory.
        per_image: str. As in `TrainingConfig`.
    """

    def __init__(self, store: Store, root: Path, per_image: str) -> None:
        spec = model_spec("soft_attention")
        given = {**SIZES, "batch_size": BATCH, "captions_per_image": per_image, "num_sample_captions": 0}
        training, sizes = parse_options(spec.config, given)
        tables = select_tables(store, spec)
        data = join_captions(tables)
        self.captions, self.features = data.train, tables.features
        self.positions = _positions(self.captions, training)
        self._lesson = CaptioningTask(root, captioner_metadata(spec, sizes, training, tables, data), tables, data)
        self._model, self._metrics = self._lesson.compiled()
        self._lesson.begin(self._model)
        self._epoch, self._step = 0, 0

    def seconds(self, steps: int) -> float:
        """How long the next steps take, as the trainer tells it."""
        return self._train(self._next(steps), steps)

    def waited(self, steps: int) -> float:
        """Share of the next steps' time in which training waits for its input."""
        waits: list[float] = []
        seconds = self._train(_timed(self._next(steps), waits), steps)
        return sum(waits) / seconds

    def _next(self, steps: int) -> tf.data.Dataset:
        """The next batches, all of one epoch."""
        if self._step + steps > self._lesson.steps:
            self._epoch, self._step = self._epoch + 1, 0
        first, self._step = self._step, self._step + steps
        return self._lesson.epoch(self._epoch).batches(first).take(steps)

    def _train(self, batches: tf.data.Dataset, steps: int) -> float:
        watcher = StepCallback(Progress(), steps, self._metrics, lambda _: None, None, lambda *_: None)
        self._model.fit(batches, callbacks=[watcher], shuffle=False, verbose=0)
        return watcher.progress().seconds


class Notebook:
    """Steps as the notebook takes them.

    Args:
        captions: Captions. What it learns from.
        arrays: sequence of str. The `.npy` files of the images' features, by content key.
    """

    def __init__(self, captions: Captions, arrays: Sequence[str]) -> None:
        padded = padded_to_longest(captions)
        self.positions = padded.shape[1] - 1
        encoder, decoder = Encoder(SIZES["embedding"]), Decoder(VOCABULARY, SIZES["embedding"], SIZES["units"])
        self._step = train_step(encoder, decoder, START)
        self._batches = iter(reader([arrays[image] for image in captions.image], padded, BATCH).repeat())

    def seconds(self, steps: int) -> float:
        """How long the next steps take."""
        started = time.perf_counter()
        for _ in range(steps):
            self._step(*next(self._batches))
        return time.perf_counter() - started


def padded_to_longest(captions: Captions) -> NDArray[np.int32]:
    """The captions as one array, int32 [captions, T], each padded to the longest."""
    padded = np.full((len(captions), int(captions.lengths.max())), PAD, np.int32)
    for number, row in enumerate(padded):
        row[: captions.lengths[number]] = captions.tokens_of(number)
    return padded


def _positions(captions: Captions, training: TrainingConfig) -> float:
    """Words that a step computes for each of its captions, padding included, in the mean."""
    order = epoch_order(captions, BATCH, training.seed, 0, training.captions_per_image)
    return float(np.mean([captions.lengths[numbers].max() - 1 for numbers in order]))


def _timed(batches: tf.data.Dataset, waits: list[float]) -> tf.data.Dataset:
    """The same batches; how long each was waited for is added to `waits`."""

    def each() -> Iterator[Any]:
        left = iter(batches)
        while True:
            started = time.perf_counter()
            batch = next(left, None)
            waits.append(time.perf_counter() - started)
            if batch is None:
                return
            yield batch

    options = tf.data.Options()
    # tf.data would itself read ahead here, where the waiting is.
    options.experimental_optimization.inject_prefetch = False
    timed = tf.data.Dataset.from_generator(each, output_signature=batches.element_spec).with_options(options)
    return timed.apply(tf.data.experimental.assert_cardinality(batches.cardinality()))


if __name__ == "__main__":
    main()
