"""Benchmark: captions per second of `capt prepare captions` and of `keras.layers.TextVectorization`.

    python benchmarks/tokenizing.py [--captions 400000] [--rounds 3]        on generated captions
    python benchmarks/tokenizing.py --text Flickr8k.token.txt               on the captions of a file, repeated

capt runs the whole command on Beam: parse annotations, fill the job database, build a vocabulary with
tensorflow-transform, save the graph, tokenize every caption, and write, commit and report the shards. The part beyond
`--dry-run`, which only parses and inserts the captions, is reported separately. The peer has its text in memory and
writes nothing: `adapt` on the training captions, then the layer on all of them, 8,192 at a time. All run in turn; the
time of 1,000 captions is start-up. The goals: 20,000 captions per second for the whole command, and a sixth of the
peer's speed without start-up.
"""

import argparse
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from cost import Cost, measure_cost
from timing import print_rounds, ratio

import capt

VOCABULARY = 5000
CAPTIONS_PER_IMAGE = 5
BATCH = 8192
FEW = 1000
OURS, PLAN, PEER = "capt prepare captions", "its plan", "TextVectorization"
TOKENIZING = "capt prepare captions, beyond its plan"
_DISTINCT_WORDS = 30_000
_MEAN_WORDS = 10.5
_SYLLABLES = ["ba", "co", "di", "fu", "ge", "hol", "in", "jar", "ke", "lo", "men", "nu", "or", "pi", "ras", "té"]


def make_captions(count: int, seed: int) -> list[str]:
    """Generates captions with Zipf-distributed words, a capital letter, a full stop and some commas."""
    random = np.random.default_rng(seed)
    words = np.array([_word(number) for number in range(_DISTINCT_WORDS)])
    weights = 1 / (np.arange(_DISTINCT_WORDS) + 2.7)
    lengths = np.maximum(3, random.poisson(_MEAN_WORDS, count))
    drawn = random.choice(words, size=int(lengths.sum()), p=weights / weights.sum())
    return [_sentence(words.tolist()) for words in np.split(drawn, np.cumsum(lengths)[:-1])]


def _word(number: int) -> str:
    digits = []
    while True:
        number, digit = divmod(number, len(_SYLLABLES))
        digits.append(_SYLLABLES[digit])
        if not number:
            return "".join(digits)


def _sentence(words: Sequence[str]) -> str:
    middle = len(words) // 2
    comma = ", " if len(words) > 12 else " "
    return f"{' '.join(words[:middle])}{comma}{' '.join(words[middle:])} .".capitalize()


def read_captions(path: Path, count: int) -> list[str]:
    """Reads captions, `name.jpg#0<TAB>caption` or one per line, and repeats them up to `count`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    captions = [re.sub(r"^\S+#\d+[\t ]", "", line) for line in lines if line.strip()]
    return [captions[number % len(captions)] for number in range(count)]


def write_coco(path: Path, captions: Sequence[str]) -> None:
    """Writes the captions to an annotation file in COCO's layout, several per image."""
    images = -(-len(captions) // CAPTIONS_PER_IMAGE)
    data = {
        "images": [{"id": number, "file_name": f"{number:012d}.jpg"} for number in range(images)],
        "annotations": [
            {"id": number, "image_id": number // CAPTIONS_PER_IMAGE, "caption": caption}
            for number, caption in enumerate(captions)
        ],
    }
    path.write_text(json.dumps(data), encoding="utf-8")


def ours(annotations: Path, plan: bool = False) -> int:
    """Prepares the captions into a new store, or as a dry run, and returns their number."""
    with tempfile.TemporaryDirectory() as store:
        result = capt.prepare_captions(
            store=f"{store}/store",
            dataset_type="coco",
            annotations=[str(annotations)],
            vocab_size=VOCABULARY,
            dry_run=plan,
        )
        assert result["ok"] == result["input"]
        return int(result["ok"])


def peer(captions: Sequence[str]) -> int:
    """Builds a vocabulary with Keras, tokenizes the captions and returns their number."""
    batches = tf.data.Dataset.from_tensor_slices(tf.constant(captions)).batch(BATCH)
    layer = keras.layers.TextVectorization(max_tokens=VOCABULARY, ragged=True)
    layer.adapt(batches)
    return sum(int(layer(batch).nrows()) for batch in batches)


def main() -> None:
    """Measures and prints."""
    options = _options()
    count = options.captions
    captions = read_captions(options.text, count) if options.text else make_captions(count, options.seed)
    with tempfile.TemporaryDirectory() as directory:
        few, every = (Path(directory) / name / "captions_train2017.json" for name in ("few", "all"))
        for path, some in ((few, captions[:FEW]), (every, captions)):
            path.parent.mkdir()
            write_coco(path, some)
        runs = {
            OURS: (lambda: ours(few), lambda: ours(every)),
            PLAN: (lambda: ours(few, plan=True), lambda: ours(every, plan=True)),
            PEER: (lambda: peer(captions[:FEW]), lambda: peer(captions)),
        }
        costs = _in_turn(runs, options.rounds)
    whole = {name: [count / every.clock for _, every in costs[name]] for name in (OURS, PEER)}
    further = {name: [every - few for few, every in each] for name, each in costs.items()}
    further[TOKENIZING] = [ours - plan for ours, plan in zip(further[OURS], further.pop(PLAN), strict=True)]
    beyond = {name: [(count - FEW) / one.clock for one in each] for name, each in further.items()}
    processor = {name: [(count - FEW) / one.processor for one in each] for name, each in further.items()}
    for title, rates in (
        ("The whole, by the clock", whole),
        ("Beyond start-up, by the clock", beyond),
        ("Beyond start-up, by processor time, which a busy machine changes less", processor),
    ):
        print(f"\n{title}:\n")
        print_rounds("captions", rates, [ratio(rates, name, PEER) for name in rates if name != PEER])


def _in_turn(
    runs: Mapping[str, tuple[Callable[[], int], Callable[[], int]]], rounds: int
) -> dict[str, list[tuple[Cost, Cost]]]:
    """Returns the costs of few and of all captions, run by run, after a warm-up round."""
    for few, _ in runs.values():
        few()
    costs: dict[str, list[tuple[Cost, Cost]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (few, every) in runs.items():
            costs[name].append((measure_cost(few), measure_cost(every)))
    return costs


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=400_000, help="how many")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--text", type=Path, help="file of captions, repeated as needed; default: generated captions")
    return parser.parse_args()


if __name__ == "__main__":
    main()
