"""Captions a second through `capt prepare captions`, beside `keras.layers.TextVectorization` on the same text.

    python benchmarks/tokenizing.py [--captions 400000] [--rounds 3]        on captions that it makes
    python benchmarks/tokenizing.py --text Flickr8k.token.txt               on the captions of a file, over and over

Ours is the whole command on Beam: annotations parsed, the ledger, a vocabulary learned with tensorflow-transform, the
graph saved, every caption tokenized, shards written, committed and reported. What it does beyond its `--plan`, which
parses and enters the captions, is told apart: learning, the graph, tokenizing, shards and the commit. The peer has its
text in memory and keeps nothing: `adapt` on the train captions, then the layer called on all of them, 8,192 at a time.
All take turns; what 1,000 captions take is start-up. The figures to reach: 20,000 captions a second for the whole
command, and beyond its start-up a sixth of the peer's speed.
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
from rounds import print_rounds, ratio
from spending import Cost, cost

import capt

VOCABULARY = 5000
CAPTIONS_AN_IMAGE = 5
BATCH = 8192
FEW = 1000
OURS, PLAN, PEER = "capt prepare captions", "its plan", "TextVectorization"
TOKENIZING = "capt prepare captions, beyond its plan"
_DISTINCT_WORDS = 30_000
_MEAN_WORDS = 10.5
_SYLLABLES = ["ba", "co", "di", "fu", "ge", "hol", "in", "jar", "ke", "lo", "men", "nu", "or", "pi", "ras", "té"]


def made_captions(count: int, seed: int) -> list[str]:
    """Captions of words whose frequencies fall as real ones do (Zipf), with a capital, a full stop, some commas."""
    random = np.random.default_rng(seed)
    words = np.array([_word(number) for number in range(_DISTINCT_WORDS)])
    weights = 1 / (np.arange(_DISTINCT_WORDS) + 2.7)
    lengths = np.maximum(3, random.poisson(_MEAN_WORDS, count))
    drawn = random.choice(words, size=int(lengths.sum()), p=weights / weights.sum())
    ends = np.cumsum(lengths)
    return [_sentence(drawn[end - size : end]) for end, size in zip(ends.tolist(), lengths.tolist(), strict=True)]


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
    """The captions of a file, `name.jpg#0<TAB>caption` or one a line, repeated until there are `count`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    captions = [re.sub(r"^\S+#\d+[\t ]", "", line) for line in lines if line.strip()]
    return [captions[number % len(captions)] for number in range(count)]


def write_coco(path: Path, captions: Sequence[str]) -> None:
    """The captions as one annotation file in COCO's layout, some an image."""
    images = -(-len(captions) // CAPTIONS_AN_IMAGE)
    data = {
        "images": [{"id": number, "file_name": f"{number:012d}.jpg"} for number in range(images)],
        "annotations": [
            {"id": number, "image_id": number // CAPTIONS_AN_IMAGE, "caption": caption}
            for number, caption in enumerate(captions)
        ],
    }
    path.write_text(json.dumps(data), encoding="utf-8")


def ours(annotations: Path, plan: bool = False) -> int:
    """Prepare the captions into a new store, or plan to; how many there were."""
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
    """Learn a vocabulary with Keras and tokenize with it; how many captions there were."""
    batches = tf.data.Dataset.from_tensor_slices(tf.constant(captions)).batch(BATCH)
    layer = keras.layers.TextVectorization(max_tokens=VOCABULARY, ragged=True)
    layer.adapt(batches)
    return sum(int(layer(batch).nrows()) for batch in batches)


def main() -> None:
    """Measure and print."""
    options = _options()
    count = options.captions
    captions = read_captions(options.text, count) if options.text else made_captions(count, options.seed)
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
    """What few captions and what all cost, run by run, after a round of few that does not count."""
    for few, _ in runs.values():
        few()
    costs: dict[str, list[tuple[Cost, Cost]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (few, every) in runs.items():
            costs[name].append((cost(few), cost(every)))
    return costs


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=400_000, help="how many")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--text", type=Path, help="file of captions, repeated as needed; default: captions are made")
    return parser.parse_args()


if __name__ == "__main__":
    main()
