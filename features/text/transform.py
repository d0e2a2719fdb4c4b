"""Builds and saves the transform graph from captions to token IDs with tensorflow-transform.

    caption string [N] → words [N, (n)] → token IDs [N, (n)] → `tokens` int64 [N, (t)], `untruncated` int64 [N]

A pipeline runs `build_counting_fn` to count words; `order_vocabulary` sorts them on any runner alike. `write_transform`
saves the graph of a built or reused vocabulary. So a reused vocabulary produces the same token IDs as before. Equal
words and table configs produce equal bytes in every process and directory. The directory can be moved.
"""

import itertools
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_transform import analyzers, impl_helper

from features.io.atomic_files import write
from features.io.plain_paths import plain_path
from features.io.temporary_names import TEMP_PREFIX
from features.text.standardize import split_words
from features.text.vocabulary import VOCABULARY_FILE, rank_vocabulary, write_vocabulary
from schemas.table_config import END, SPECIAL_TOKENS, START, UNKNOWN, CaptionTableConfig

CAPTION = "caption"
TOKENS = "tokens"
UNTRUNCATED = "untruncated"
COUNTS = "counts"

PARTS = (tft.TFTransformOutput.TRANSFORM_FN_DIR, tft.TFTransformOutput.TRANSFORMED_METADATA_DIR)

_USER_NAME = "_user_specified_name"
_QUOTED = r'"((?:[^"\\]|\\.)*)"'

_Tensors = dict[str, Any]


def build_counting_fn(table_config: CaptionTableConfig) -> Callable[[_Tensors], _Tensors]:
    """Returns a preprocessing function for `AnalyzeDataset` that counts the words of `caption` string [N].

    The transform's asset `counts` has one `COUNT WORD` per line, at most `vocab_size` of them, and no word below
    `min_count`.
    """
    table_config.check()

    def count(inputs: _Tensors) -> _Tensors:
        words = split_words(inputs[CAPTION], table_config.standardizer, table_config.filters)
        # Counting within each batch first leaves about a tenth of the elements for Beam.
        distinct, _, counts = tf.unique_with_counts(words.flat_values, tf.int64)
        tft.vocabulary(
            distinct,
            top_k=table_config.vocab_size - len(SPECIAL_TOKENS) if table_config.vocab_size else None,
            frequency_threshold=table_config.min_count if table_config.min_count > 1 else None,
            vocab_filename=COUNTS,
            store_frequency=True,
            weights=counts,
        )
        return {"words": words.row_lengths()}

    return count


def order_vocabulary(counts: bytes) -> list[str]:
    """Returns the vocabulary of an asset `counts`: special tokens, then words by frequency, ties in reverse order.

    tensorflow-transform writes the counts in this order only if the runner keeps the order of a group's values.
    """
    pairs = [line.split(b" ", 1) for line in counts.split(b"\n") if line]
    # If there are no words, tensorflow-transform writes a placeholder.
    _, placeholder = analyzers.get_empy_vocabulary_dummy_value(tf.string)
    return rank_vocabulary((int(count), word) for count, word in pairs if word != placeholder)


def write_transform(words: Sequence[str], table_config: CaptionTableConfig, output_dir: Path) -> None:
    """Saves the transform of a vocabulary, special tokens first, in a local directory and replaces an existing one.

    All words are used, regardless of `table_config.vocab_size`.

    Raises:
        StoreError: The words are not a vocabulary.
        UsageError: The table config's limits leave no room for a word.
    """
    table_config.check()
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=TEMP_PREFIX, dir=output_dir) as made, plain_path(Path(made)) as temporary:
        vocabulary = temporary / VOCABULARY_FILE
        write_vocabulary(vocabulary, words)
        built = temporary / "built"
        impl_helper.analyze_in_place(
            _build_tokenizing_fn(table_config, vocabulary),
            force_tf_compat_v1=False,
            feature_specs={},
            type_specs={CAPTION: tf.TensorSpec([None], tf.string)},
            transform_output_path=str(built),
        )
        _make_deterministic(built / tft.TFTransformOutput.TRANSFORM_FN_DIR)
        for part in PARTS:
            shutil.rmtree(output_dir / part, ignore_errors=True)
            (built / part).rename(output_dir / part)


def _build_tokenizing_fn(table_config: CaptionTableConfig, vocabulary: Path) -> Callable[[_Tensors], _Tensors]:
    def tokenize(inputs: _Tensors) -> _Tensors:
        words = split_words(inputs[CAPTION], table_config.standardizer, table_config.filters)
        ids = words.with_values(tft.apply_vocabulary(words.values, str(vocabulary), lookup_fn=_lookup))
        kept = ids[:, : table_config.max_length - 2] if table_config.max_length else ids
        start, end = (tf.fill([ids.nrows(), 1], tf.constant(token, tf.int64)) for token in (START, END))
        return {TOKENS: tf.concat([start, kept, end], axis=1), UNTRUNCATED: ids.row_lengths() + 2}

    return tokenize


def _lookup(words: tf.Tensor, vocabulary: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    lines = tf.lookup.TextFileInitializer(
        vocabulary,
        key_dtype=tf.string,
        key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
        value_dtype=tf.int64,
        value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    # A named table would store this path in the file, and graphs of the process would share the table.
    table = tf.lookup.StaticHashTable(lines, UNKNOWN, experimental_is_anonymous=True)
    return table.lookup(words), table.size()


def _make_deterministic(saved_model: Path) -> None:
    """Makes the bytes of a SavedModel depend only on its computation.

    TensorFlow numbers functions and captured tensors with a counter of the process, and sorts functions by a hash of
    their names. It also adds a random identifier as `fingerprint.pb`, which loading does not need.
    """
    (saved_model / "fingerprint.pb").unlink()
    path = saved_model / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    names = _renumber([f.signature.name for graph in model.meta_graphs for f in graph.graph_def.library.function])
    text = text_format.MessageToString(model)
    text = re.sub(_QUOTED, lambda match: f'"{names.get(match[1], match[1])}"', text)
    model = text_format.Parse(text, saved_model_pb2.SavedModel())
    for graph in model.meta_graphs:
        functions = graph.graph_def.library.function
        functions.sort(key=lambda function: function.signature.name)
        for argument in itertools.chain.from_iterable(function.arg_attr.values() for function in functions):
            if _USER_NAME in argument.attr and argument.attr[_USER_NAME].s.isdigit():
                del argument.attr[_USER_NAME]
    write(path, model.SerializeToString(deterministic=True))


def _renumber(names: Sequence[str]) -> dict[str, str]:
    """Maps each name `BASE_COUNTER` to `BASE_RANK`, its rank among the names with the same base."""
    parts = sorted((match[1], int(match[2])) for name in names if (match := re.fullmatch(r"(.+)_(\d+)", name)))
    return {
        f"{base}_{counter}": f"{base}_{rank}"
        for base, group in itertools.groupby(parts, key=lambda part: part[0])
        for rank, (_, counter) in enumerate(group)
    }
