"""Learning a vocabulary with Beam: tensorflow-transform counts the words of the train captions."""

from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform.beam as tft_beam
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from features.text.transform import CAPTION, COUNTS, build_counting_fn, order_vocabulary, write_transform
from schemas.table_config import CaptionTableConfig

_SCALAR = schema_pb2.TensorRepresentation(dense_tensor={"column_name": CAPTION, "shape": {}})
_CAPTIONS = TensorAdapterConfig(pa.schema([(CAPTION, pa.list_(pa.binary()))]), {CAPTION: _SCALAR})


def build_vocabulary(
    batches: beam.PCollection, table_config: CaptionTableConfig, output_dir: Path, temp_dir: Path
) -> beam.PCollection:
    """Learn a vocabulary and save the transform that tokenizes with it.

    Captions in record batches → words counted → the most frequent, in order → `output_dir`. Only counts cross a
    shuffle. Where no word is seen `recipe.min_count` times, the vocabulary holds the special words alone.

    Args:
        batches: PCollection of pyarrow.RecordBatch or Table. Train captions, in a column `caption` of strings without
            nulls; other columns are ignored.
        table_config: CaptionTableConfig. Its `standardizer`, `vocab_size`, `min_count` and `max_length` count.
        output_dir: Path. Where the transform is saved, as `transform_for_vocabulary` does; every worker must see it.
        temp_dir: Path. For files of the run, which are left there; every worker must see it, and
            TensorFlow must take its path literally (`features.io.plain_paths`).

    Returns:
        PCollection of one int: ids in the vocabulary, the special ones included.
    """
    columns = batches | "take the captions" >> beam.Map(_caption_column).with_output_types(pa.RecordBatch)
    with tft_beam.Context(temp_dir=str(temp_dir)):
        counted, _ = (columns, _CAPTIONS) | "count words" >> tft_beam.AnalyzeDataset(build_counting_fn(table_config))
    return counted | "save the transform" >> beam.Map(_save_transform, table_config, output_dir)


def _caption_column(batch: pa.RecordBatch | pa.Table) -> pa.RecordBatch:
    captions = batch.column(CAPTION)
    if isinstance(captions, pa.ChunkedArray):
        captions = captions.combine_chunks()
    offsets = pa.array(range(len(captions) + 1), pa.int32())
    rows = pa.ListArray.from_arrays(offsets, captions.cast(pa.binary()))
    return pa.RecordBatch.from_arrays([rows], [CAPTION])


def _save_transform(counted: str, table_config: CaptionTableConfig, output_dir: Path) -> int:
    with tf.io.gfile.GFile(f"{counted}/assets/{COUNTS}", "rb") as file:
        words = order_vocabulary(file.read())
    write_transform(words, table_config, output_dir)
    return len(words)
