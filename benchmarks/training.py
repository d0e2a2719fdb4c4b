"""Benchmark: training captions per second, soft attention in capt and the reference notebooks' unrolled train step.

    python benchmarks/training.py --text Flickr8k.token.txt     on the captions of a file, with its train list beside it
    python benchmarks/training.py                               on generated captions
    python benchmarks/training.py --words 16                    on captions of 16 words, which need no padding

Both train on the same captions of the same images, 64 per step, with embedding size 256, 512 units, features of 64×2048
projected to 256, and 5,000 words, in float32. capt runs the steps of `capt train captioner` with reading: all captions
of an image in one batch, padded to the longest caption of the batch. The notebook pads all captions to the longest of
all and reads an image's features once per caption. Tables and files are in the page cache. Timing starts after
compilation, when the notebook's shuffle buffer is full.

`ours, one caption per image` uses `captions_per_image: one`, with the same number of images per step as the notebook.
Finally, it prints the fraction of capt's training time that was spent waiting for input.
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
from notebook_captioner import Decoder, Encoder, reader, train_step
from numpy.typing import NDArray
from synthetic_tables import catalog, feature_table, save_arrays, train_images
from timing import Work, measure_in_turn, print_rounds, ratio
from tokenizing import make_captions

import capt
from features.store import Store, create_store
from schemas.table_config import PAD, START
from trainer.config import CaptionerTraining
from trainer.data.caption_data import Captions, join_captions
from trainer.data.caption_order import shuffle_captions
from trainer.data.table_selection import select_tables
from trainer.models.model_specs import model_spec
from trainer.runs.checkpoints import Progress
from trainer.tasks.captioning import CaptioningTask
from trainer.training.step_callback import StepCallback

BATCH = 64
SIZES = {"embedding_dim": 256, "units": 512, "attention_dim": 512, "projection_dim": 256, "output_dim": 512}
VOCABULARY = 5000
CAPTIONS_PER_IMAGE = 5
DATASET = "flickr8k"
OURS, ONE, PEER = "ours", "ours, one caption per image", "notebook"
_TOKENS, _TRAIN_LIST = "Flickr8k.token.txt", "Flickr_8k.trainImages.txt"


def main() -> None:
    """Measures and prints."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        directory = Path(work)
        text = options.text or write_captions(directory / "text", options.images, options.words)
        store = make_store(directory / "store", text, options.images)
        ours, one = Ours(store, directory / "ours", "all"), Ours(store, directory / "one", "one")
        peer = Notebook(ours.captions, save_arrays(directory / "arrays", ours.features))
        works = {name: _rate(trained, options.steps) for name, trained in ((OURS, ours), (ONE, one), (PEER, peer))}
        rates = measure_in_turn(works, options.rounds)
        waited = ours.waited(options.steps)
    ratios = [ratio(rates, name, PEER) for name in (OURS, ONE)]
    positions = {OURS: ours.positions, ONE: one.positions, PEER: peer.positions}
    print_rounds("captions", rates, ratios, waited=waited, positions=positions)
    print(f"training waited for input {waited:.2%} of its time")
    print("positions per caption: " + ", ".join(f"{name} {words:.1f}" for name, words in positions.items()))


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--text", type=Path, help="file with lines `name.jpg#0<TAB>caption`; default: generated captions"
    )
    parser.add_argument("--words", type=int, help="number of words of each generated caption; default: varies")
    parser.add_argument("--images", type=int, default=1664, help="number of training images, a multiple of 64")
    parser.add_argument("--steps", type=int, default=8, help="steps per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", help="directory for tables and files; default: the system's temporary directory")
    return parser.parse_args()


def _rate(trained: Any, steps: int) -> Work:
    return lambda: steps * BATCH / trained.seconds(steps)


# === Captions and tables ===


def write_captions(directory: Path, images: int, words: int | None) -> Path:
    """Writes generated captions in Flickr8k's layout, five per image, and a train list of all images."""
    captions = make_captions(images * CAPTIONS_PER_IMAGE, seed=0)
    captions = captions if words is None else _cut(captions, words)
    names = [f"{number:06d}.jpg" for number in range(images)]
    lines = [
        f"{names[number // CAPTIONS_PER_IMAGE]}#{number % CAPTIONS_PER_IMAGE}\t{caption}"
        for number, caption in enumerate(captions)
    ]
    directory.mkdir(parents=True)
    (directory / _TOKENS).write_text("\n".join(lines) + "\n", encoding="utf-8")
    (directory / _TRAIN_LIST).write_text("\n".join(names) + "\n", encoding="utf-8")
    return directory / _TOKENS


def _cut(captions: Sequence[str], words: int) -> list[str]:
    """Returns the same number of captions, each with a fixed number of words."""
    words_in_turn = cycle(re.findall(r"\w+", " ".join(captions)))
    return [" ".join(islice(words_in_turn, words)) for _ in captions]


def make_store(path: Path, text: Path, images: int) -> Store:
    """Creates a store with the captions, and features of the first images of the train split."""
    store = create_store(path)
    capt.prepare_captions(store=str(path), dataset_type=DATASET, annotations=[str(text)], vocab_size=VOCABULARY)
    names = train_images(store.caption_tables()[0])[:images]
    feature_table(store, names)
    catalog(store, DATASET, names)
    return store


# === Who trains ===


class Ours:
    """The steps of `capt train captioner`.

    Args:
        store: Store with captions and features.
        root: Run directory.
        per_image: `captions_per_image` of `CaptionerTraining`.
    """

    def __init__(self, store: Store, root: Path, per_image: str) -> None:
        spec = model_spec("soft_attention")
        given = {**SIZES, "batch_size": BATCH, "captions_per_image": per_image, "num_sample_captions": 0}
        task = CaptioningTask()
        hyperparameters = task.parse("soft_attention", given)
        tables = select_tables(store, spec)
        data = join_captions(tables)
        self.captions, self.features = data.train, tables.features
        self.positions = _positions(self.captions, hyperparameters.training)
        self._job = task.job_class()(root, hyperparameters, tables, data)
        self._model, self._metrics = self._job.compile_model()
        self._job.initialize(self._model)
        self._epoch, self._step = 0, 0

    def seconds(self, steps: int) -> float:
        """Returns the seconds of the next steps, as the trainer measures them."""
        return self._train(self._next(steps), steps)

    def waited(self, steps: int) -> float:
        """Returns the fraction of the next steps' time that training waits for input."""
        waits: list[float] = []
        seconds = self._train(_timed(self._next(steps), waits), steps)
        return sum(waits) / seconds

    def _next(self, steps: int) -> tf.data.Dataset:
        """Returns the next batches, all of one epoch."""
        if self._step + steps > self._job.steps:
            self._epoch, self._step = self._epoch + 1, 0
        first, self._step = self._step, self._step + steps
        return self._job.epoch(self._epoch).batches(first).take(steps)

    def _train(self, batches: tf.data.Dataset, steps: int) -> float:
        metrics = dict(zip(self._job.metric_names, self._metrics, strict=True))
        watcher = StepCallback(Progress(), steps, metrics, lambda _: None, None, lambda *_: None)
        self._model.fit(batches, callbacks=[watcher], shuffle=False, verbose=0)
        return watcher.progress().seconds


class Notebook:
    """The steps of the notebook.

    Args:
        captions: Training captions.
        arrays: The `.npy` files of the features, by image.
    """

    def __init__(self, captions: Captions, arrays: Sequence[str]) -> None:
        padded = padded_to_longest(captions)
        self.positions = padded.shape[1] - 1
        encoder, decoder = Encoder(SIZES["embedding_dim"]), Decoder(VOCABULARY, SIZES["embedding_dim"], SIZES["units"])
        self._step = train_step(encoder, decoder, START)
        self._batches = iter(reader([arrays[image] for image in captions.image], padded, BATCH).repeat())

    def seconds(self, steps: int) -> float:
        """Returns the seconds of the next steps."""
        started = time.perf_counter()
        for _ in range(steps):
            self._step(*next(self._batches))
        return time.perf_counter() - started


def padded_to_longest(captions: Captions) -> NDArray[np.int32]:
    """Returns the captions as one array int32 [captions, T], padded to the longest."""
    padded = np.full((len(captions), int(captions.lengths.max())), PAD, np.int32)
    for number, row in enumerate(padded):
        row[: captions.lengths[number]] = captions.get_tokens(number)
    return padded


def _positions(captions: Captions, training: CaptionerTraining) -> float:
    """Returns the mean number of computed positions per caption, with padding."""
    order = shuffle_captions(captions, BATCH, training.seed, 0, training.captions_per_image)
    return float(np.mean([captions.lengths[numbers].max() - 1 for numbers in order]))


def _timed(batches: tf.data.Dataset, waits: list[float]) -> tf.data.Dataset:
    """Returns the same batches; appends the waiting time of each to `waits`."""

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
