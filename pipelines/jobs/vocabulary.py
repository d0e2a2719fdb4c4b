"""Builds a vocabulary with Beam: tensorflow-transform counts the words of the train captions."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import tensorflow as tf
import tensorflow_transform.beam as tft_beam
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx_bsl.tfxio.tensor_adapter import TensorAdapterConfig

from features.io.locations import parse_location
from features.text.transform import CAPTION, COUNTS, build_counting_fn, order_vocabulary, write_transform
from pipelines.beam.runners import run_pipeline
from pipelines.beam.work_plans import open_unit
from schemas.table_config import CaptionTableConfig

_BATCH_ROWS = 65_536

_SCALAR = schema_pb2.TensorRepresentation(dense_tensor={"column_name": CAPTION, "shape": {}})
_CAPTIONS = TensorAdapterConfig(pa.schema([(CAPTION, pa.list_(pa.binary()))]), {CAPTION: _SCALAR})


def analyze_captions(
    plan: Path, table_config: CaptionTableConfig, output_dir: Path, temp_dir: Path, beam_options: Sequence[str]
) -> None:
    """Runs the pipeline of `build_vocabulary` on the train captions in a work plan."""
    with run_pipeline(beam_options) as pipeline:
        batches = (
            pipeline
            | "Captions" >> beam.Create([str(plan)])
            | "CaptionUnits" >> beam.FlatMap(_list_units)
            | "SpreadCaptions" >> beam.Reshuffle()
            | "TrainCaptions" >> beam.FlatMap(_read_train_batches)
        )
        build_vocabulary(batches, table_config, output_dir, temp_dir)


def build_vocabulary(
    batches: beam.PCollection, table_config: CaptionTableConfig, output_dir: Path, temp_dir: Path
) -> beam.PCollection:
    """Builds a vocabulary, and saves the transform that tokenizes with it. Only counts cross a shuffle.

    If no word occurs `min_count` times, the vocabulary contains the special tokens only.

    Args:
        batches: PCollection of pyarrow.RecordBatch or Table, with strings without nulls in the column `caption`.
        table_config: Its `standardizer`, `vocab_size`, `min_count` and `max_length` are used.
        output_dir: Directory for the transform. Every worker must see it.
        temp_dir: Directory for temporary files, which are not deleted. Every worker must see it, and TensorFlow must
            read its path literally (`features.io.plain_paths`).

    Returns:
        PCollection of one int, the vocabulary size including special tokens.
    """
    columns = batches | "SelectCaptions" >> beam.Map(_select_captions).with_output_types(pa.RecordBatch)
    with tft_beam.Context(temp_dir=str(temp_dir)):
        counted, _ = (columns, _CAPTIONS) | "CountWords" >> tft_beam.AnalyzeDataset(build_counting_fn(table_config))
    return counted | "SaveTransform" >> beam.Map(_save_transform, table_config, output_dir)


def _list_units(plan: str) -> Iterator[str]:
    return (str(unit) for unit in sorted((parse_location(plan) / "units").glob("*.parquet")))


def _read_train_batches(unit: str) -> Iterator[pa.RecordBatch]:
    with open_unit(parse_location(unit)) as file:
        for batch in file.iter_batches(_BATCH_ROWS, columns=["split", "caption"]):
            train = batch.filter(pa.compute.equal(batch["split"], "train"))
            if train.num_rows:
                yield train.select(["caption"])


def _select_captions(batch: pa.RecordBatch | pa.Table) -> pa.RecordBatch:
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
