"""A store of small pictures with captions that a small captioner can learn, made without an engine."""

import hashlib
import itertools
import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

import capt
from features.extractors.extraction import EncodedImage, ExtractionCore
from features.extractors.factory import open_extractor
from features.extractors.frozen_graph import freeze, load_frozen_graph
from features.extractors.output_layers import FeatureFunction
from features.images.resize import Resizer
from features.io.atomic_files import atomic_write, describe_file, write
from features.io.locks import wait_for_lock
from features.store import Store, create_store
from features.store.commit_log import CommitLog
from features.store.shards import ShardWriter
from features.text.transform import write_transform
from features.text.vocabulary import identify_given_vocabulary, write_vocabulary
from schemas.manifests import CaptionMetadata, DatasetMetadata, FeatureMetadata, Manifest, Shard
from schemas.options.extractor import ExtractorOptions
from schemas.records import to_arrow
from schemas.table_config import SPECIAL_TOKENS, CaptionTableConfig, FeatureTableConfig
from schemas.tables import CAPTIONS, CATALOG
from tests.trainer.words import EPOCHS, SMALL, STEPS, Captcha, make_words
from tests.trainer.words import captchas as make_captchas

COLORS = {"red": (210, 20, 30), "green": (20, 150, 40), "blue": (30, 40, 220), "yellow": (230, 220, 30)}
WORDS = [*SPECIAL_TOKENS, "a", "square", "at", "the", *COLORS, "left", "right", "top", "bottom", "there", "is"]
SIDE, CELLS = 32, 4
TINY_SIZES = {
    "soft_attention": {"embedding_dim": 12, "units": 16, "attention_dim": 10, "projection_dim": 14, "output_dim": 18},
    "hard_attention": {
        "embedding_dim": 12,
        "units": 16,
        "attention_dim": 10,
        "output_dim": 18,
        "dropout": 0.0,
        "doubly_stochastic": 0.1,
    },
    "transformer": {"num_layers": 1, "units": 16, "dropout": 0.0, "max_length": 12},
    "nic": {"embedding_dim": 12, "units": 16, "dropout": 0.0, "image_dropout": 0.0, "init_scale": 0.5},
    "m_rnn": {"embedding_dim": 10, "embedding_dim_2": 16, "units": 16, "multimodal": 18},
    "init_inject": {"embedding_dim": 12, "units": 16, "image_bottleneck": 10, "logit_bottleneck": 14},
    "par_inject": {"embedding_dim": 12, "units": 16, "dropout": 0.0},
    "merge": {"embedding_dim": 12, "units": 16, "dropout": 0.0, "image_dropout": 0.0},
}


@dataclass(frozen=True)
class Picture:
    image_id: str
    split: str
    data: bytes
    captions: tuple[str, ...]

    @property
    def key(self) -> bytes:
        return hashlib.sha256(self.data).digest()


def pictures(count: int = 32) -> list[Picture]:
    """A coloured square in a quarter of each picture; two captions each, three for every fourth."""
    kinds = list(itertools.product(COLORS, ("top", "bottom"), ("left", "right")))
    splits = ("train", "train", "train", "val")
    return [_picture(i, *kinds[i % len(kinds)], splits[(i // len(kinds)) % 4]) for i in range(count)]


def _picture(number: int, color: str, row: str, column: str, split: str) -> Picture:
    image = Image.new("RGB", (64, 48), (230, 230, 230 - number % 7))
    x, y = (36 if column == "right" else 4), (28 if row == "bottom" else 4)
    ImageDraw.Draw(image).rectangle((x, y, x + 20 + number % 3, y + 14), fill=COLORS[color])
    data = BytesIO()
    image.save(data, "PNG")
    long = f"there is a {color} square at the {row} {column}"
    captions = (f"a {color} square at the {row} {column}", long, f"a {color} square")
    return Picture(f"{number:03d}", split, data.getvalue(), captions[: 3 if number % 4 == 0 else 2])


def write_pictures(folder: Path, shown: list[Picture]) -> None:
    """Writes the pictures to a new folder, where `add_dataset` expects them."""
    folder.mkdir()
    for picture in shown:
        (folder / f"{picture.image_id}.png").write_bytes(picture.data)


def make_store(root: Path, shown: list[Picture], *, pooled: bool = False, dtype: str = "float16", **rules) -> Store:
    """The pictures as a dataset `squares` with features and captions."""
    store = create_store(root)
    add_features(store, shown, pooled=pooled, dtype=dtype, **rules)
    add_captions(store, shown)
    add_dataset(store, shown)
    return store


def add_features(
    store: Store, shown: list[Picture], *, pooled: bool = False, dtype: str = "float16", **rules: str
) -> None:
    """A table of the mean colours of each picture's cells."""
    import tensorflow as tf

    def cells(pixels):
        parts = tf.reshape(tf.cast(pixels, tf.float32) / 127.5 - 1, (-1, CELLS, SIDE // CELLS, CELLS, SIDE // CELLS, 3))
        means = tf.reshape(tf.reduce_mean(parts, (2, 4)), (-1, CELLS * CELLS, 3))
        places = tf.tile(tf.eye(CELLS * CELLS)[None], (tf.shape(pixels)[0], 1, 1))
        values = tf.concat([means, places], -1)
        return tf.reduce_mean(values, 1) if pooled else values

    table_config = FeatureTableConfig(
        extractor="inception_v3",
        weights="random:1",
        layer="mixed10",
        pooling="avg" if pooled else "none",
        height=SIDE,
        width=SIDE,
        precision="float32",
        dtype=dtype,
        **rules,
    )
    add_table(store, shown, table_config, cells)


def add_pixels(store: Store, shown: list[Picture], side: int = SIDE, **rules: str) -> None:
    """A table of the pictures themselves."""
    extractor = open_extractor(ExtractorOptions(extractor="pixels", height=side, width=side))
    table_config = FeatureTableConfig(**asdict(extractor.resolve_config()), **rules)
    add_table(store, shown, table_config, extractor.build_function(table_config))


def add_table(store: Store, shown: list[Picture], table_config: FeatureTableConfig, features: FeatureFunction) -> None:
    """A table of what a function makes of the pictures."""
    graph = freeze(features, table_config.height, table_config.width, Resizer.from_table_config(table_config).dtype)
    network = hashlib.sha256(graph).hexdigest()
    write(store.extractor_path(network), graph)
    loaded = load_frozen_graph(store.extractor_path(network), "float32")
    root = store.feature_table_root(table_config)
    unique = {picture.key: picture for picture in shown}
    writer = ShardWriter(root, "first", table_config.table(loaded.shape), table_config.format, 0, 1)
    sources = (EncodedImage(key, lambda data=unique[key].data: data) for key in sorted(unique))
    for row in ExtractionCore(table_config, loaded).run(sources):
        writer.append({"key": row.key, **row.values})
    facts = FeatureMetadata(shape=loaded.shape, network=network, numerics="test", toolchain={})
    _commit(root, Manifest(table=table_config.fingerprint, shards=_shards(writer), facts=facts))


def add_captions(
    store: Store, shown: list[Picture], name: str = "squares", *, max_length: int = 0, words: list[str] = WORDS
) -> None:
    table_config = CaptionTableConfig(dataset=name, vocabulary=identify_given_vocabulary(words), max_length=max_length)
    root = store.caption_table_root(table_config)
    write_vocabulary(root / "first" / "vocabulary.txt", words)
    write_transform(words, table_config, root / "first" / "transform")
    rows = sorted(
        (
            _caption(name, picture, str(i), caption, words)
            for picture in shown
            for i, caption in enumerate(picture.captions)
        ),
        key=lambda row: row["key"],
    )
    writer = ShardWriter(root, "first", CAPTIONS, table_config.format, 0, 1)
    for row in rows:
        writer.append(row)
    paths = sorted(path for path in (root / "first" / "transform").rglob("*") if path.is_file())
    files = {path.relative_to(root / "first").as_posix(): describe_file(path, root) for path in paths}
    files["vocabulary"] = describe_file(root / "first" / "vocabulary.txt", root)
    facts = CaptionMetadata(
        inputs="0" * 64, words=len(words), captions={}, tokens={}, unknown={}, truncated=0, longest=0
    )
    _commit(root, Manifest(table=table_config.fingerprint, shards=_shards(writer), files=files, facts=facts))


def add_dataset(store: Store, shown: list[Picture], name: str = "squares", folder: Path | None = None) -> None:
    root = store.dataset_root(name)
    rows = [
        {
            "image_id": picture.image_id,
            "key": picture.key,
            "split": picture.split,
            "location": str(folder / f"{picture.image_id}.png") if folder else "",
            "member": "",
            "bytes": len(picture.data),
        }
        for picture in shown
    ]
    path = root / f"catalog-{len(rows)}" / "catalog.parquet"
    with atomic_write(path) as temporary:
        pq.write_table(to_arrow(CATALOG, rows), temporary)
    facts = DatasetMetadata(source="folder", images={})
    _commit(root, Manifest(table=name, files={"catalog": describe_file(path, root)}, facts=facts))


def _caption(name: str, picture: Picture, caption_id: str, caption: str, words: list[str]) -> dict[str, object]:
    identity = "\0".join((name, picture.image_id, caption_id))
    ids = [words.index(word) if word in words else 1 for word in caption.split()]
    return {
        "key": hashlib.sha256(identity.encode()).digest(),
        "dataset": name,
        "image_id": picture.image_id,
        "caption_id": caption_id,
        "split": picture.split,
        "caption": caption,
        "tokens": [2, *ids, 3],
    }


def _shards(writer: ShardWriter) -> tuple[Shard, ...]:
    shard = writer.close()
    return (shard,) if shard else ()


def _commit(root: Path, manifest: Manifest) -> None:
    CommitLog(root).append(manifest)


@pytest.fixture(scope="session")
def squares() -> ModuleType:
    """This module, for tests that make stores of their own."""
    return sys.modules[__name__]


@pytest.fixture(scope="session")
def shown() -> list[Picture]:
    return pictures(64)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory, shown: list[Picture]) -> Store:
    """A store that tests only read."""
    return make_store(tmp_path_factory.mktemp("store") / "store", shown)


@pytest.fixture(scope="session")
def tiny_sizes() -> dict[str, dict[str, object]]:
    """Sizes by model at which one is quick to build and to train; no dropout."""
    return TINY_SIZES


@pytest.fixture(scope="session")
def captchas() -> list[Captcha]:
    return make_captchas()


@pytest.fixture(scope="session")
def words_store(tmp_path_factory: pytest.TempPathFactory, squares: ModuleType, captchas: list[Captcha]) -> Store:
    """A store of words in pictures that tests only read; those of the test split are not told."""
    return make_words(tmp_path_factory.mktemp("words") / "store", squares, captchas)


@pytest.fixture(scope="session")
def words_run(tmp_path_factory: pytest.TempPathFactory, words_store: Store) -> tuple[Path, dict[str, object]]:
    """A recognizer that reads most words right, with which tests only read, and what its training said."""
    own = tmp_path_factory.mktemp("words") / "run"
    # Two workers of the tests train it once.
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "words-run"
    summary = shared.with_suffix(".json")
    with wait_for_lock(shared.with_suffix(".lock")):
        if not summary.exists():
            options = {"epochs": EPOCHS, "steps_per_epoch": STEPS, "hyperparameters": SMALL}
            summary.write_text(
                json.dumps(capt.train_captcha(store=words_store.path, run_dir=shared, seed=0, **options))
            )
    shutil.copytree(shared, own)
    (own / "store.txt").write_text(f"{words_store.path}\n")
    return own, json.loads(summary.read_text())
