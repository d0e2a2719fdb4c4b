"""A store of small pictures of short words, which a small recognizer can learn, made without an engine."""

import hashlib
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from features.extractors.factory import open_extractor
from features.io.atomic_files import atomic_write, describe_file
from features.store import Store, create_store
from features.store.commit_log import CommitLog
from schemas.manifests import DatasetMetadata, LabelFormat, Manifest
from schemas.options.extractor import ExtractorOptions
from schemas.records import to_arrow
from schemas.table_config import FeatureTableConfig
from schemas.tables import CATALOG, LABELS

WORDS = ("an", "no", "on", "to", "tan", "not", "ant", "oat", "null", "noon")
HEIGHT, WIDTH = 24, 64
# Few epochs, for each is validated and kept; a pass over the train split is a fifth of one.
EPOCHS, STEPS = 5, 50
SMALL = {
    "filters": (8, 24),
    "blocks_per_stage": (0, 1),
    "units": 24,
    "max_label_length": 4,
    "dropout": 0.1,
    "batch_size": 16,
    "learning_rate": 0.01,
    "augment_translation": 0.02,
    "ema_momentum": 0.9,
    "lr_schedule": "constant",
    "warmup_steps": 0,
    "precision": "float32",
}


@dataclass(frozen=True)
class Captcha:
    image_id: str
    split: str
    data: bytes
    word: str
    captions: tuple[str, ...] = ()

    @property
    def key(self) -> bytes:
        return hashlib.sha256(self.data).digest()


def captchas(count: int = 240) -> list[Captcha]:
    """Words in some colour, size and place; two thirds train, then val, then test."""
    splits = ("train", "train", "train", "train", "val", "test")
    return [captcha(number, splits[6 * number // count]) for number in range(count)]


def captcha(number: int, split: str) -> Captcha:
    rng = np.random.default_rng(number)
    word = WORDS[number % len(WORDS)]
    image = Image.new("RGB", (2 * WIDTH, 2 * HEIGHT), "white")
    font = ImageFont.load_default(int(rng.integers(26, 32)))
    place = (int(rng.integers(2, 30)), int(rng.integers(0, 8)))
    ImageDraw.Draw(image).text(place, word, tuple(rng.integers(0, 128, 3).tolist()), font)
    data = BytesIO()
    image.save(data, "PNG")
    return Captcha(f"a{number}", split, data.getvalue(), word)


def make_words(
    root: Path,
    squares,
    shown: list[Captcha],
    labeled_splits: tuple[str, ...] = ("train", "val"),
    label_format: LabelFormat | None = None,
    folder: Path | None = None,
    size: tuple[int, int] = (HEIGHT, WIDTH),
) -> Store:
    """The pictures as a dataset `captcha` of pixels, with the words of some splits; `squares` is the conftest."""
    store = create_store(root)
    extractor = open_extractor(ExtractorOptions(extractor="pixels", height=size[0], width=size[1]))
    table_config = FeatureTableConfig(**asdict(extractor.resolve_config()))
    squares.add_table(store, shown, table_config, extractor.build_function(table_config))
    add_words(store, shown, labeled_splits, folder, label_format)
    return store


def add_words(
    store: Store,
    shown: list[Captcha],
    labeled_splits: tuple[str, ...],
    folder: Path | None = None,
    label_format: LabelFormat | None = None,
    dataset: str = "captcha",
    fold_case: bool = False,
) -> None:
    """The dataset: its catalog, and the words of the splits that are labeled_splits."""
    root = store.dataset_root(dataset)
    rows = [
        {
            "image_id": one.image_id,
            "key": one.key,
            "split": one.split,
            "location": str(folder / f"{one.image_id}.png") if folder else "",
            "member": "",
            "bytes": len(one.data),
        }
        for one in sorted(shown, key=lambda one: one.image_id)
    ]
    labels = [{"image_id": one.image_id, "word": one.word} for one in shown if one.split in labeled_splits]
    labels.sort(key=lambda row: row["image_id"])
    files = {}
    for role, table, content in (("catalog", CATALOG, rows), ("labels", LABELS, labels)):
        path = root / "first" / f"{role}.parquet"
        with atomic_write(path) as temporary:
            pq.write_table(to_arrow(table, content), temporary)
        files[role] = describe_file(path, root)
    facts = DatasetMetadata(source="captcha", images={}, label_format=label_format, fold_case=fold_case)
    CommitLog(root).append(Manifest(table=dataset, files=files, facts=facts))


def put_images(folder: Path, shown: list[Captcha]) -> Path:
    """The pictures as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for one in shown:
        (folder / f"{one.image_id}.png").write_bytes(one.data)
    return folder


def truth_lines(shown: list[Captcha]) -> str:
    return "".join(f"{one.image_id} {one.word}\n" for one in shown)
