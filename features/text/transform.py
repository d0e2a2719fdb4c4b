"""Transform graphs: captions in, token ids out, built with tensorflow-transform and saved as a SavedModel.

    caption string [N] → words [N, (n)] → ids [N, (n)] → `tokens` int64 [N, (t)], `untruncated` int64 [N]

A vocabulary is learned by counting words (`counting_fn`, run by a pipeline) and putting them in order
(`ordered_words`); the graph that is saved is built from the finished list, learned or given, by one function
(`transform_for_vocabulary`). So a vocabulary that is reused tokenizes as it did where it was learned, and the order
holds on any engine. Equal words and recipes give equal bytes, whatever the process did before and wherever the folder
is; the folder may be moved.
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

from features.io.atomic_files import TEMP_PREFIX, write
from features.io.plain_paths import plain_path
from features.text.standardize import split_words
from features.text.vocabulary import VOCABULARY_FILE, write_vocabulary
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
    """A preprocessing function for `AnalyzeDataset` that counts the words of `caption` string [N].

    The counts become the asset `counts` of the transform, one `COUNT WORD` a line, no more of them than
    `recipe.vocab_size` leaves room for and none below `recipe.min_count`.
    """
    table_config.check()

    def count(inputs: _Tensors) -> _Tensors:
        words = split_words(inputs[CAPTION], table_config.standardizer)
        # Counted within each batch first: what Beam handles one by one is distinct words, a tenth of all.
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
    """The vocabulary that an asset `counts` gives: special words, then the most frequent first, ties in reverse order.

    tensorflow-transform writes the counts in this order, but only where the engine keeps the order of a group's values.
    """
    pairs = [line.split(b" ", 1) for line in counts.split(b"\n") if line]
    ranked = sorted(((int(count), word) for count, word in pairs), reverse=True)
    # Where there is no word at all, tensorflow-transform writes one of its own.
    _, nothing = analyzers.get_empy_vocabulary_dummy_value(tf.string)
    return [*SPECIAL_TOKENS, *(word.decode() for _, word in ranked if word != nothing)]


def write_transform(words: Sequence[str], table_config: CaptionTableConfig, output_dir: Path) -> None:
    """Save the transform that tokenizes with the given words, replacing one that is there.

    Args:
        words: str by id. The vocabulary, special words first; it is used whole, whatever `recipe.vocab_size` says.
        table_config: CaptionTableConfig. Its `standardizer` and `max_length` are built in.
        output_dir: Path. Local directory that gets `transform_fn/` and `transformed_metadata/`.

    Raises:
        StoreError: the words are no vocabulary.
        UsageError: the recipe's bounds leave no room for a word.
    """
    table_config.check()
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=TEMP_PREFIX, dir=output_dir) as made, plain_path(Path(made)) as temporary:
        vocabulary = temporary / VOCABULARY_FILE
        write_vocabulary(vocabulary, words)
        built = temporary / "built"
        impl_helper.analyze_in_place(
            _tokenizing_fn(table_config, vocabulary),
            force_tf_compat_v1=False,
            feature_specs={},
            type_specs={CAPTION: tf.TensorSpec([None], tf.string)},
            transform_output_path=str(built),
        )
        _settle(built / tft.TFTransformOutput.TRANSFORM_FN_DIR)
        for part in PARTS:
            shutil.rmtree(output_dir / part, ignore_errors=True)
            (built / part).rename(output_dir / part)


def _tokenizing_fn(table_config: CaptionTableConfig, vocabulary: Path) -> Callable[[_Tensors], _Tensors]:
    def tokenize(inputs: _Tensors) -> _Tensors:
        words = split_words(inputs[CAPTION], table_config.standardizer)
        ids = words.with_values(tft.apply_vocabulary(words.values, str(vocabulary), lookup_fn=_lookup))
        kept = ids[:, : table_config.max_length - 2] if table_config.max_length else ids
        tokens = tf.concat([_column(ids, START), kept, _column(ids, END)], axis=1)
        return {TOKENS: tokens, UNTRUNCATED: ids.row_lengths() + 2}

    return tokenize


def _column(ids: tf.RaggedTensor, value: int) -> tf.Tensor:
    return tf.fill([ids.nrows(), 1], tf.constant(value, tf.int64))


def _lookup(words: tf.Tensor, vocabulary: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    lines = tf.lookup.TextFileInitializer(
        vocabulary,
        key_dtype=tf.string,
        key_index=tf.lookup.TextFileIndex.WHOLE_LINE,
        value_dtype=tf.int64,
        value_index=tf.lookup.TextFileIndex.LINE_NUMBER,
    )
    # A table with a name would put this path into the file, and be shared by all graphs in the process that name it so.
    table = tf.lookup.StaticHashTable(lines, UNKNOWN, experimental_is_anonymous=True)
    return table.lookup(words), table.size()


def _settle(saved_model: Path) -> None:
    """Make the bytes of a SavedModel depend on what it computes alone.

    TensorFlow numbers functions and captured tensors by a counter of the process, stores functions in the order of a
    hash of their names, and adds a random identifier as `fingerprint.pb`, which loading does not need.
    """
    (saved_model / "fingerprint.pb").unlink()
    path = saved_model / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    names = _settled_names([f.signature.name for graph in model.meta_graphs for f in graph.graph_def.library.function])
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


def _settled_names(names: Sequence[str]) -> dict[str, str]:
    """Each name `BASE_COUNTER` with the counter replaced by its rank among the names with the same base."""
    parted = sorted((match[1], int(match[2])) for name in names if (match := re.fullmatch(r"(.+)_(\d+)", name)))
    return {
        f"{base}_{counter}": f"{base}_{rank}"
        for base, group in itertools.groupby(parted, key=lambda part: part[0])
        for rank, (_, counter) in enumerate(group)
    }
