"""The files that the pages' commands read: small, made by the tests, in the published layouts."""

import hashlib
import json
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pyarrow as pa
import pyarrow.parquet as pq

from features.inputs.image_urls import build_download_name
from tests.conftest import noise_image, zip_of
from tests.docs.pages import ROOT

NUM_IMAGES = 12
_IS_VAL = [number % 4 == 3 for number in range(NUM_IMAGES)]
_WORDS = ("red", "blue", "green", "small", "large")


def write_files(root: Path) -> None:
    """Writes the images and annotations that the pages name."""
    noise_image(0).save(root / "photo.jpg")
    _write_coco(root)
    _write_karpathy(root)
    _write_rows(root)
    _write_coco_2014(root)
    _write_tokens(root)
    _write_flickr8k(root)
    _write_conceptual(root)
    _write_iapr(root)
    _write_shards(root)
    _write_parquet(root)
    zip_of(root / "photos" / "dogs", root / "more.zip")
    for name, source in {"good": "cats", "bad": "dogs"}.items():
        shutil.copytree(root / "photos" / source, root / name)
    _write_examples(root)


def _write_images(directory: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise_image(number).save(path, "JPEG")


def _caption(number: int, other: int = 0) -> str:
    return f"A {_WORDS[number % 5]} thing beside a {_WORDS[(number + other + 1) % 5]} one."


def _split(number: int) -> str:
    return "val" if _IS_VAL[number] else "train"


def _write_coco(root: Path) -> None:
    names = [f"{_split(number)}2017/{number:012d}.jpg" for number in range(NUM_IMAGES)]
    _write_images(root, names)
    _write_images(root / "coco-mini", names)
    for split in ("train", "val"):
        zip_of(root / f"{split}2017", root / f"{split}2017.zip")
    _write_coco_annotations(root, 2017, [Path(name).name for name in names])


def _write_coco_2014(root: Path) -> None:
    """Writes the annotations of the images that `_write_karpathy` writes."""
    names = [f"COCO_{_split(number)}2014_{number:012d}.jpg" for number in range(NUM_IMAGES)]
    _write_coco_annotations(root, 2014, names)


def _write_coco_annotations(root: Path, year: int, names: list[str]) -> None:
    for split in ("train", "val"):
        numbers = [number for number in range(NUM_IMAGES) if _split(number) == split]
        data = {
            "images": [{"id": number, "file_name": names[number]} for number in numbers],
            "annotations": [
                {"id": 10 * number + other, "image_id": number, "caption": _caption(number, other)}
                for number in numbers
                for other in range(2)
            ],
        }
        (root / f"captions_{split}{year}.json").write_text(json.dumps(data))
    with ZipFile(root / f"annotations_trainval{year}.zip", "w") as archive:
        for split in ("train", "val"):
            name = f"captions_{split}{year}.json"
            archive.write(root / name, f"annotations/{name}")


def _write_karpathy(root: Path) -> None:
    images = []
    for number in range(NUM_IMAGES):
        directory = f"{_split(number)}2014"
        name = f"COCO_{directory}_{number:012d}.jpg"
        _write_images(root, [f"{directory}/{name}"])
        sentences = [{"raw": _caption(number, other), "sentid": 2 * number + other} for other in range(2)]
        images.append(
            {
                "filepath": directory,
                "filename": name,
                "imgid": number,
                "cocoid": 1000 + number,
                "split": _split(number),
                "sentences": sentences,
            }
        )
    (root / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    for split in ("train", "val"):
        zip_of(root / f"{split}2014", root / f"{split}2014.zip")
        shutil.rmtree(root / f"{split}2014")


def _write_rows(root: Path) -> None:
    names = [f"{'cats' if number % 3 else 'dogs'}/{number:03d}.jpg" for number in range(NUM_IMAGES)]
    _write_images(root / "photos", names)
    rows = [(name, _caption(number), _split(number)) for number, name in enumerate(names)]
    (root / "captions.csv").write_text("\n".join(map(",".join, [("image", "caption", "split"), *rows])))
    reviews = [(name, caption, "Ein Ding.", f"person{number % 5}") for number, (name, caption, _) in enumerate(rows)]
    header = ("photo", "english", "german", "photographer")
    (root / "reviews.csv").write_text("\n".join(map(",".join, [header, *reviews])))
    lines = [json.dumps({"image": name, "caption": caption, "split": split}) for name, caption, split in rows]
    (root / "captions.jsonl").write_text("\n".join(lines))


def _write_tokens(root: Path) -> None:
    names = [f"{1000 + number}.jpg" for number in range(NUM_IMAGES)]
    _write_images(root / "flickr30k-images", names)
    lines = [f"{name}#{other}\t{_caption(number, other)}" for number, name in enumerate(names) for other in range(2)]
    for name in ("results_20130124.token", "Flickr8k.token.txt"):
        (root / name).write_text("\n".join(lines))
    _pack(root / "flickr30k-images.tar.gz", root / "flickr30k-images")
    _pack(root / "flickr30k.tar.gz", root / "results_20130124.token")


def _write_flickr8k(root: Path) -> None:
    """Writes the two archives, with the images and captions of `_write_tokens` and the three lists."""
    zip_of(root / "flickr30k-images", root / "Flickr8k_Dataset.zip")
    with ZipFile(root / "Flickr8k_text.zip", "w") as archive:
        archive.write(root / "Flickr8k.token.txt", "Flickr8k.token.txt")
        for position, split in enumerate(("dev", "test", "train")):
            numbers = [number for number in range(NUM_IMAGES) if min(number % 4, 2) == position]
            archive.writestr(f"Flickr_8k.{split}Images.txt", "".join(f"{1000 + number}.jpg\n" for number in numbers))


def _write_conceptual(root: Path) -> None:
    """The images are downloaded already."""
    urls = [f"https://example.com/{number}.jpg" for number in range(NUM_IMAGES)]
    captions = [_caption(number) for number in range(NUM_IMAGES)]
    lines = [f"{caption}\t{url}" for caption, url in zip(captions, urls, strict=True)]
    (root / "Train_GCC-training.tsv").write_text("\n".join(lines))
    names = [build_download_name(url) for url in urls]
    _write_images(root / "downloads", names)
    hashes = [hashlib.md5((root / "downloads" / name).read_bytes()).hexdigest() for name in names]
    pq.write_table(pa.table({"URL": urls, "TEXT": captions, "md5": hashes}), root / "laion.parquet")


def _write_iapr(root: Path) -> None:
    names = [f"images/00/{number}.jpg" for number in range(NUM_IMAGES)]
    _write_images(root / "iaprtc12", names)
    directory = root / "iaprtc12" / "annotations_complete_eng" / "00"
    directory.mkdir(parents=True)
    for number, name in enumerate(names):
        text = f"<DOC><DESCRIPTION>{_caption(number)}</DESCRIPTION><IMAGE>{name}</IMAGE></DOC>"
        (directory / f"{number}.eng").write_text(text)
    _pack(root / "iaprtc12.tgz", root / "iaprtc12")


def _write_shards(root: Path) -> None:
    """Writes two WebDataset shards."""
    (root / "shards").mkdir()
    for shard in range(2):
        with tarfile.open(root / "shards" / f"{shard:05d}.tar", "w") as archive:
            for number in range(shard, NUM_IMAGES, 2):
                photo = root / f"{shard:05d}{number:04d}.jpg"
                noise_image(number).save(photo)
                photo.with_suffix(".txt").write_text(_caption(number))
                for path in (photo, photo.with_suffix(".txt")):
                    archive.add(path, path.name)
                    path.unlink()


def _write_parquet(root: Path) -> None:
    """Writes a dataset as the library `datasets` does."""
    (root / "parquet").mkdir()
    photos = sorted((root / "photos").rglob("*.jpg"))
    rows = {
        "image": [{"bytes": path.read_bytes(), "path": path.name} for path in photos],
        "caption": [_caption(number) for number in range(len(photos))],
    }
    pq.write_table(pa.table(rows), root / "parquet" / "train-00000-of-00001.parquet")


def _pack(archive: Path, path: Path) -> None:
    with tarfile.open(archive, "w:gz") as file:
        file.add(path, path.name)


def _write_examples(root: Path) -> None:
    """Copies the examples, with one epoch of few steps, a small extractor and one recognizer."""
    shutil.copytree(ROOT / "examples", root / "examples")
    for path in (root / "examples").rglob("*.yaml"):
        text = re.sub(r"\bepochs: \d+", "epochs: 1", path.read_text(encoding="utf-8"))
        text = re.sub(r"steps_per_epoch: \d+", "steps_per_epoch: 2", text)
        text = text.replace("inception_v3", "mobilenet_v3_small").replace("  quick: {profile: quick}\n", "")
        path.write_text(text, encoding="utf-8")


MODEL = """
import keras
layers = keras.layers
model = keras.Sequential([
    layers.Input((224, 224, 3)),
    layers.Conv2D(8, 3, strides=16),
    layers.Conv2D(8, 3, strides=2, name="block4"),
])
model.save("mine.keras")
"""


def write_store(run: Callable[[str], None]) -> None:
    """Prepares `S`: COCO with a spatial and a pooled feature table, and a caption table."""
    annotations = "--annotations captions_train2017.json --annotations captions_val2017.json"
    for pooling in ("none", "avg"):
        run(
            f"capt prepare features --store S --dataset-type coco --images train2017 --images val2017 {annotations}"
            f" --pooling {pooling}"
        )
    run(f"capt prepare captions --store S --dataset-type coco {annotations}")


def write_captchas(run: Callable[[str], None], root: Path) -> None:
    """Writes the files that the page on CAPTCHAs names, in the published layout."""
    run("capt synth captcha published --num-images 14000 --seed 1")
    images = root / "published" / "words_captcha"
    zip_of(images, root / "words_captcha.zip")
    shutil.copy(images / "a65.png", root)
    shutil.copy(root / "published" / "truth.txt", root)
    (root / "folder").mkdir()
    shutil.copy(images / "a66.png", root / "folder")
    labels = dict(line.split() for line in (root / "truth.txt").read_text().splitlines())
    (root / "captcha_images_v2").mkdir()
    for image_id, label in list(labels.items())[:40]:
        shutil.copy(images / f"{image_id}.png", root / "captcha_images_v2" / f"{label}.png")
    rows = [f"{path.name},{path.stem}\n" for path in sorted((root / "captcha_images_v2").iterdir())]
    (root / "labels.csv").write_text(f"image,label\n{''.join(rows)}")
    shutil.rmtree(root / "published")
