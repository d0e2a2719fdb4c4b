"""Writes datasets with the libraries that define the formats, and what these libraries read in them.

    python write_files.py OUT URL

It runs in an environment with `requirements.txt` and without capt. URL is a server of images `/N.jpg`, of which
img2dataset downloads some. `OUT/LAYOUT/` are the files, and `OUT/expected.json` has the records of each layout: ID,
split, captions and SHA-256 of the image.
"""

import hashlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import datasets
import img2dataset
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset
from datasets.table import embed_table_storage
from PIL import Image

COUNT = 10
_SHARD = 4
_DEAD = (3, 6)
_SPLITS = {"train": "train", "validation": "val", "test": "test"}

Record = tuple[str, str | None, list[str], str]


def make_image(number: int) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((32, 24), 40 + number).convert("RGB").save(out, "JPEG")
    return out.getvalue()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_webdataset(root: Path) -> Iterator[Record]:
    """Shards of text, and of JSON, with keys in directories."""
    for split in ("train", "val"):
        pattern = str(root / f"{split}-%05d.tar")
        with webdataset.ShardWriter(pattern, maxcount=_SHARD, verbose=0) as sink:
            for number in range(COUNT):
                key, text = f"{split}/{number:06d}", f"A café, number {number}"
                caption = {"txt": text, "cls": 7} if split == "train" else {"json": {"caption": [text, "A dog"]}}
                sink.write({"__key__": key, "jpg": make_image(number), **caption})
        shards = sorted(str(path) for path in root.glob(f"{split}-*.tar"))
        for sample in webdataset.WebDataset(shards, shardshuffle=False):
            found = [sample["txt"].decode()] if "txt" in sample else json.loads(sample["json"])["caption"]
            yield sample["__key__"], split, found, digest(sample["jpg"])


def write_huggingface(root: Path) -> Iterator[Record]:
    """Parquet of images from memory and from files, with several captions each."""
    files = root.parent / "huggingface-files"
    files.mkdir()
    for number in range(COUNT):
        (files / f"{number:04d}.jpg").write_bytes(make_image(number))
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.List(datasets.Value("string"))})
    for split, part in (("train", range(7)), ("validation", range(7, COUNT))):
        images = [
            {"bytes": make_image(number), "path": f"{number:04d}.jpg"}
            if number % 2
            else str(files / f"{number:04d}.jpg")
            for number in part
        ]
        captions = [[f"Eine Tür {number}", "A door"] for number in part]
        made = datasets.Dataset.from_dict({"image": images, "caption": captions}, features=features)
        # As `push_to_hub` does; `to_parquet` alone would keep the paths of files.
        made = made.with_format("arrow").map(embed_table_storage, batched=True).with_format(None)
        made.to_parquet(root / f"{split}-00000-of-00001.parquet", batch_size=3)
    for split, rows in datasets.load_dataset("parquet", data_dir=str(root)).items():
        for row in rows.cast_column("image", datasets.Image(decode=False)):
            yield row["image"]["path"], _SPLITS[split], row["caption"], digest(row["image"]["bytes"])


def write_imagefolder(root: Path) -> Iterator[Record]:
    """Images of two splits with metadata."""
    for split, part in (("train", range(7)), ("test", range(7, COUNT))):
        (root / split / "sub").mkdir(parents=True)
        lines = []
        for number in part:
            name = f"sub/{number}.jpg" if number % 2 else f"{number}.jpg"
            (root / split / name).write_bytes(make_image(number))
            lines.append(json.dumps({"file_name": name, "text": f"A photo, number {number}"}))
        (root / split / "metadata.jsonl").write_text("\n".join(lines))
    yield from _read_imagefolder(root)


def write_classes(root: Path) -> Iterator[Record]:
    """Images of two splits in directories of classes."""
    for number in range(COUNT):
        path = root / ("train" if number < 7 else "test") / ("cat" if number % 2 else "dog") / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_image(number))
    yield from _read_imagefolder(root)


def _read_imagefolder(root: Path) -> Iterator[Record]:
    for split, rows in datasets.load_dataset("imagefolder", data_dir=str(root)).items():
        classes = rows.features["label"].names if "label" in rows.features else ()
        for row in rows.cast_column("image", datasets.Image(decode=False)):
            text = classes[row["label"]] if classes else row["text"]
            path = Path(row["image"]["path"])
            yield str(path.relative_to(root)), _SPLITS[split], [text], digest(path.read_bytes())


def write_img2dataset(root: Path, url: str) -> Iterator[Record]:
    """Downloads of a list with dead links, as tars with side files."""
    urls = [f"{url}/{'none' if number in _DEAD else number}.jpg" for number in range(COUNT)]
    texts = [f"A photo, number {number}" for number in range(COUNT)]
    pq.write_table(pa.table({"url": urls, "caption": texts}), root.parent / "urls.parquet")
    img2dataset.download(
        url_list=str(root.parent / "urls.parquet"),
        input_format="parquet",
        url_col="url",
        caption_col="caption",
        output_folder=str(root),
        output_format="webdataset",
        number_sample_per_shard=COUNT,
        image_size=32,
        processes_count=1,
        thread_count=2,
        retries=0,
        enable_wandb=False,
    )
    rows = {row["key"]: row for path in root.glob("*.parquet") for row in pq.ParquetFile(path).read().to_pylist()}
    assert sum(row["status"] != "success" for row in rows.values()) == len(_DEAD)
    for sample in webdataset.WebDataset(sorted(map(str, root.glob("*.tar"))), shardshuffle=False):
        yield sample["__key__"], None, [rows[sample["__key__"]]["caption"]], digest(sample["jpg"])


def write_wrong_type(path: Path) -> None:
    """Parquet whose captions are numbers."""
    images = [{"bytes": make_image(number), "path": f"{number}.jpg"} for number in range(2)]
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("int64")})
    datasets.Dataset.from_dict({"image": images, "caption": [1, 2]}, features=features).to_parquet(path)


def main(out: Path, url: str) -> None:
    """Writes all layouts."""
    layouts = {
        "webdataset": write_webdataset,
        "huggingface": write_huggingface,
        "imagefolder": write_imagefolder,
        "classes": write_classes,
        "img2dataset": lambda root: write_img2dataset(root, url),
    }
    expected = {}
    for name, write in layouts.items():
        (out / name).mkdir(parents=True)
        expected[name] = list(write(out / name))
    write_wrong_type(out / "wrong.parquet")
    (out / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
