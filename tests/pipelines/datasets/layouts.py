"""Every dataset in its published layout, small, made by the tests, with the faults that its files are known for.

Each has `PHOTOS` images under the names that the dataset gives them, one of them broken, and names one more that is
not there.
"""

import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.conftest import noise_image

PHOTOS = 6
WORDS = ("red", "blue", "green", "small", "large", "old", "new")


@dataclass(frozen=True)
class Layout:
    """A dataset as its user has it, and what is to become of it.

    Args:
        kind: str. What `--dataset` takes.
        images: list of str. What `--images` takes.
        annotations: list of str. What `--annotations` takes.
        splits: dict. Sound images by split; empty where the dataset has none of its own.
        captions: int. Captions that are there to be had.
        repaired: dict. Repaired captions, by fault.
        malformed: dict. What cannot be read as a caption, by reason.
        missing: int. Images named that are not there.
    """

    kind: str
    images: list[str]
    annotations: list[str]
    captions: int
    splits: dict[str, int] = field(default_factory=dict)
    repaired: dict[str, int] = field(default_factory=dict)
    malformed: dict[str, int] = field(default_factory=dict)
    missing: int = 1


def sentence(number: int, other: int = 0) -> str:
    """A caption."""
    return f"A {WORDS[number % 7]} thing and a {WORDS[(number + other + 1) % 7]} one ."


def photos(names: list[str], directory: Path) -> Path:
    """The images under these names; the last is cut short, so that it fails, and one is grey, and one is CMYK."""
    for number, name in enumerate(names):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise_image(number).convert({1: "L", 2: "CMYK"}.get(number, "RGB")).save(path)
    last = directory / names[-1]
    last.write_bytes(last.read_bytes()[:-400])
    return directory


def zipped(directory: Path) -> str:
    """The directory's files in a zip beside it, each under its path."""
    path = directory.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(one for one in directory.rglob("*") if one.is_file()):
            archive.write(file, file.relative_to(directory))
    return str(path)


def coco(root: Path) -> Layout:
    """COCO 2014: two folders of images, and the annotations' zip; spaces and line ends in captions."""
    folders = ["train2014"] * 4 + ["val2014"] * 3
    names = [f"COCO_{folder}_{number:012d}.jpg" for number, folder in enumerate(folders)]
    photos([f"{folder}/{name}" for folder, name in zip(folders[:PHOTOS], names, strict=False)], root)
    for split, numbers in (("train", range(4)), ("val", range(4, 7))):
        data = {
            "images": [{"id": number, "file_name": names[number]} for number in numbers],
            "annotations": [
                {"id": 10 * number + other, "image_id": number, "caption": f"{sentence(number, other)}\nSeen. "}
                for number in numbers
                for other in range(2)
            ],
        }
        path = root / "annotations" / "annotations" / f"captions_{split}2014.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data))
    (root / "annotations" / "annotations" / "instances_val2014.json").write_text("{}")
    images = [str(root / "train2014"), str(root / "val2014")]
    return Layout("coco", images, [zipped(root / "annotations")], 14, {"train": 4, "val": 1})


def karpathy(root: Path) -> Layout:
    """Karpathy's COCO: restval among the splits, and images in the folders that COCO has."""
    splits = ["train", "restval", "train", "val", "test", "test", "train"]
    names = [f"COCO_val2014_{number:012d}.jpg" for number in range(7)]
    images = [
        {
            "filepath": "val2014",
            "filename": names[number],
            "imgid": number,
            "cocoid": 1000 + number,
            "split": split,
            "sentences": [
                {"tokens": sentence(number, other).lower().split(), "raw": sentence(number, other), "sentid": sentid}
                for other, sentid in enumerate((2 * number, 2 * number + 1))
            ],
        }
        for number, split in enumerate(splits)
    ]
    path = root / "texts" / "dataset_coco.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"images": images, "dataset": "coco"}))
    photos([f"val2014/{name}" for name in names[:PHOTOS]], root / "images")
    return Layout(
        "karpathy", [zipped(root / "images")], [zipped(root / "texts")], 14, {"train": 3, "val": 1, "test": 1}
    )


def flickr8k(root: Path) -> Layout:
    """Flickr8k: a space for a tab, the image that was never published, a line without caption, an image on no list."""
    names = [f"{number}_693b08cb0e.jpg" for number in range(PHOTOS)]
    lines = [f"{name}#{other}\t{sentence(number, other)}" for number, name in enumerate(names) for other in range(2)]
    lines[3] = lines[3].replace("\t", " ")
    lines += ["2258277193_586949ec62.jpg.1#0\tA ghost .", f"{names[0]}#2"]
    files = {
        "Flickr8k.token.txt": "\n".join(lines),
        "Flickr8k.lemma.token.txt": "\n".join(lines),
        "Flickr_8k.trainImages.txt": "\n".join(names[:3]),
        "Flickr_8k.devImages.txt": names[3] + "\n",
        "Flickr_8k.testImages.txt": names[5] + "\n",
        "readme.txt": "no data",
    }
    (root / "Flickr8k_text").mkdir()
    for name, text in files.items():
        (root / "Flickr8k_text" / name).write_text(text)
    images = photos(names, root / "Flicker8k_Dataset")
    splits = {"train": 3, "val": 1, "unused": 1}
    repaired, malformed = {"space for the tab": 1}, {"no caption": 1}
    return Layout("flickr8k", [str(images)], [zipped(root / "Flickr8k_text")], 13, splits, repaired, malformed)


def flickr30k(root: Path) -> Layout:
    """Flickr30k's results.csv: the row without its separator, and one that ends early."""
    names = [f"{1000092795 + number}.jpg" for number in range(7)]
    rows = [f"{name}| {other}| {sentence(number, other)}" for number, name in enumerate(names) for other in range(2)]
    rows[5] = rows[5].replace("| 1| ", "| 1   ")
    rows.append(f"{names[0]}| 2")
    (root / "results.csv").write_text("\n".join(["image_name| comment_number| comment", *rows]))
    images = photos(names[:PHOTOS], root / "flickr30k-images")
    repaired, malformed = {"missing separator": 1}, {"no image|number|caption": 1}
    return Layout("flickr30k", [str(images)], [str(root / "results.csv")], 14, {}, repaired, malformed)


def iapr(root: Path) -> Layout:
    """IAPR TC-12: Latin-1, a bare ampersand, a file that is none, light annotations beside the complete ones."""
    for number in range(7):
        image = f"<IMAGE>images/0{number % 2}/{number}.jpg</IMAGE>"
        for folder, text in (
            ("annotations", ""),
            ("annotations_complete_eng", f"<DESCRIPTION>{sentence(number)}; a café & a bar;</DESCRIPTION>"),
        ):
            path = root / "iaprtc12" / folder / f"0{number % 2}" / f"{number}.eng"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"<DOC>\n<TITLE>One</TITLE>\n{text}\n{image}\n</DOC>\n".encode("latin-1"))
    (root / "iaprtc12" / "annotations_complete_eng" / "00" / "99.eng").write_bytes(b"")
    photos([f"images/0{number % 2}/{number}.jpg" for number in range(PHOTOS)], root / "iaprtc12")
    place = [str(root / "iaprtc12.tar")]
    with tarfile.open(place[0], "w") as archive:
        archive.add(root / "iaprtc12", "iaprtc12")
    return Layout("iapr", place, place, 14, {}, {}, {"no DOC": 1})


def csv(root: Path) -> Layout:
    """A spreadsheet's CSV: an unquoted comma, a split that is none, words that look like missing values."""
    names = [f"photo {number}.jpg" for number in range(7)]
    rows = [f'{name},"{sentence(number)}",{"val" if number == 3 else "train"}' for number, name in enumerate(names)]
    rows += [f"{names[0]},null,", f"{names[0]},A dog, running,train", f"{names[1]},A dog,tarin"]
    (root / "captions.csv").write_text("\ufeffImage,Caption,Split\r\n" + "\r\n".join(rows), encoding="utf-8")
    malformed = {"too many columns": 1, "unknown split": 1}
    images = photos(names[:PHOTOS], root / "mine")
    return Layout("csv", [str(images)], [str(root / "captions.csv")], 8, {"train": 4, "val": 1}, {}, malformed)


def jsonl(root: Path) -> Layout:
    """JSON lines: a caption or several a line, and a line cut short."""
    names = [f"{number}.jpg" for number in range(7)]
    lines = [
        json.dumps(
            {"image": name, "captions": [sentence(number), "a café"], "split": "dev" if number == 3 else "train"}
        )
        for number, name in enumerate(names)
    ]
    lines += [json.dumps({"image": names[0], "caption": "NA"}), '{"image": "0.jpg", "capt']
    (root / "captions.jsonl").write_text("\n".join(lines))
    images = photos(names[:PHOTOS], root / "mine")
    return Layout(
        "jsonl", [str(images)], [str(root / "captions.jsonl")], 15, {"train": 4, "val": 1}, {}, {"not JSON": 1}
    )


def webdataset(root: Path) -> Layout:
    """WebDataset shards with text or JSON, as img2dataset writes them, one caption a number, and a directory."""
    images = photos([f"{number:09d}.jpg" for number in range(PHOTOS)], root / "photos")
    (root / "shards").mkdir()
    for split, numbers in (("train", range(4)), ("val", range(4, PHOTOS))):
        (root / "shards" / f"{split}-00000_stats.json").write_text("{}")
        with tarfile.open(root / "shards" / f"{split}-00000.tar", "w") as archive:
            for number in numbers:
                path = images / f"{number:09d}.jpg"
                caption = [sentence(number), 5] if number == 1 else sentence(number)
                path.with_suffix(".json").write_text(json.dumps({"caption": caption, "key": path.stem, "url": "u"}))
                files = [path, path.with_suffix(".json")]
                if number % 2 == 0:
                    path.with_suffix(".txt").write_text(sentence(number, 1))
                    files.append(path.with_suffix(".txt"))
                for file in files:
                    archive.add(file, file.name)
    place, malformed = [str(root / "shards")], {"caption is not text": 1}
    return Layout("webdataset", place, place, PHOTOS, {"train": 4, "val": 1}, {}, malformed, missing=0)


def huggingface(root: Path) -> Layout:
    """Parquet with images as `datasets` writes them: a structure of bytes and path, and a list of captions."""
    names = [f"{number}.jpg" for number in range(PHOTOS)]
    images = photos(names, root / "photos")
    for split, numbers in (("train", range(4)), ("validation", range(4, PHOTOS))):
        rows = {
            "image": [{"bytes": (images / names[number]).read_bytes(), "path": names[number]} for number in numbers],
            "caption": [[sentence(number), None if number == 1 else "a café"] for number in numbers],
        }
        path = root / "data" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table(rows), path, row_group_size=2)
    place, malformed = [str(root / "data")], {"caption is not text": 1}
    return Layout("huggingface", place, place, 2 * PHOTOS - 1, {"train": 4, "val": 1}, {}, malformed, missing=0)


def imagefolder(root: Path) -> Layout:
    """Images in directories of splits with metadata files; a row without a caption, and one of a missing image."""
    images = photos([f"{'train' if number < 4 else 'test'}/{number}.jpg" for number in range(PHOTOS)], root / "mine")
    for split, numbers in (("train", range(4)), ("test", range(4, PHOTOS))):
        lines = [json.dumps({"file_name": f"{number}.jpg", "text": sentence(number)}) for number in numbers]
        if split == "test":
            lines += [json.dumps({"file_name": "9.jpg", "text": "A dog ."}), json.dumps({"file_name": "4.jpg"})]
        (images / split / "metadata.jsonl").write_text("\n".join(lines))
    place = [str(images)]
    return Layout("imagefolder", place, place, PHOTOS + 1, {"train": 4, "test": 1}, {}, {"no caption": 1})


def folder(root: Path) -> Layout:
    """Images alone."""
    names = [f"{number % 2}/{number}.jpg" for number in range(PHOTOS)]
    return Layout("folder", [str(photos(names, root / "mine"))], [], 0, missing=0)


LAYOUTS: dict[str, Callable[[Path], Layout]] = {
    maker.__name__: maker
    for maker in (coco, karpathy, flickr8k, flickr30k, iapr, csv, jsonl, webdataset, huggingface, imagefolder, folder)
}
