"""The rule of identity holds for every dataset type: same file, same image; other file, other image; no guess."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from features.inputs.image_urls import build_download_name
from tests.reliability.test_identity import captioned, captions, catalog, draw, failures, features


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty directory."""
    monkeypatch.chdir(tmp_path)


def _write(path: str, text: str) -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text)
    return path


def coco(number: int, name: str, text: str) -> str:
    own = {"id": number, "image_id": 1, "caption": text}
    data = {"images": [{"id": 1, "file_name": name}], "annotations": [own]}
    return _write(f"{number}/captions_x.json", json.dumps(data))


def karpathy(number: int, name: str, text: str) -> str:
    image = {"filename": name, "imgid": 1, "split": "train", "sentences": [{"raw": text, "sentid": number}]}
    return _write(f"{number}/dataset_x.json", json.dumps({"images": [image]}))


def flickr8k(number: int, name: str, text: str) -> str:
    return _write(f"{number}/Flickr8k.token.txt", f"{name}#{number}\t{text}\n")


def flickr30k(number: int, name: str, text: str) -> str:
    return _write(f"{number}/results_20130124.token", f"{name}#{number}\t{text}\n")


def conceptual(number: int, name: str, text: str) -> str:
    return _write(f"{number}/Train.tsv", f"{text}\thttp://localhost/{name}\n")


def urls(number: int, name: str, text: str) -> str:
    return _write(f"{number}/urls.csv", f"URL,TEXT\nhttp://localhost/{name},{text}\n")


def iapr(number: int, name: str, text: str) -> str:
    document = f"<DOC><DESCRIPTION>{text}</DESCRIPTION><IMAGE>images/{name}</IMAGE></DOC>"
    _write(f"{number}/annotations_complete_eng/00/{number}.eng", document)
    return f"{number}/annotations_complete_eng"


def csv(number: int, name: str, text: str) -> str:
    return _write(f"{number}/c.csv", f"image,caption,id\n{name},{text},{number}\n")


def jsonl(number: int, name: str, text: str) -> str:
    return _write(f"{number}/c.jsonl", json.dumps({"image": name, "caption": text, "id": str(number)}))


ANNOTATED: dict[str, Callable[[int, str, str], str]] = {
    function.__name__: function
    for function in (coco, karpathy, flickr8k, flickr30k, conceptual, urls, iapr, csv, jsonl)
}
every_type = pytest.mark.parametrize("kind", ANNOTATED)


def place(kind: str, name: str) -> str:
    """The path below a root at which the file of a name lies."""
    if kind in ("conceptual", "urls"):
        return build_download_name(f"http://localhost/{name}")
    return f"images/{name}" if kind == "iapr" else name


def drawn(kind: str, root: str, *names: str) -> dict[str, str]:
    """Images in a root, by name."""
    draw(f"{root}/drawn.png", *(f"{root}/{name}.png" for name in names))
    paths = {name: f"{root}/{place(kind, name)}" for name in names}
    for name, path in paths.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(f"{root}/{name}.png").rename(path)
    return paths


def check_joined(kind: str, files: list[str], expected: dict[str, str]) -> None:
    """Checks the file that each caption is joined to, and that the order of annotation files decides no id."""
    captions("store", kind, files[::-1], split_ratios="1,0,0")
    features("store", kind, ["p"], files)
    assert captioned("store", kind) == expected
    features("other", kind, ["p"], files[::-1])
    assert catalog("other", kind) == catalog("store", kind)
    assert sorted(catalog("store", kind).values()) == sorted(set(expected.values()))


@pytest.mark.slow
@every_type
def test_files_that_name_one_image_give_it_all_their_captions_in_any_order(kind: str) -> None:
    path = drawn(kind, "p", "a.png")["a.png"]
    files = [ANNOTATED[kind](1, "a.png", "one dog"), ANNOTATED[kind](2, "a.png", "a cat")]
    if kind == "iapr":  # captions are numbered within an image, so both descriptions have the same caption id
        assert captions("store", kind, files, split_ratios="1,0,0")["reasons"] == {"duplicate id": 1}
    else:
        check_joined(kind, files, {"one dog": path, "a cat": path})


@pytest.mark.slow
@every_type
def test_files_that_name_other_images_give_each_its_own_caption_in_any_order(kind: str) -> None:
    paths = drawn(kind, "p", "a.png", "b.png")
    files = [ANNOTATED[kind](1, "a.png", "one dog"), ANNOTATED[kind](2, "b.png", "a cat")]
    check_joined(kind, files, {"one dog": paths["a.png"], "a cat": paths["b.png"]})


@every_type
@pytest.mark.parametrize("roots", [["p", "q"], ["q", "p"]])
def test_a_name_of_two_roots_is_ambiguous_in_every_type(kind: str, roots: list[str]) -> None:
    for root in roots:
        drawn(kind, root, "a.png")
    assert digest(f"p/{place(kind, 'a.png')}") != digest(f"q/{place(kind, 'a.png')}")
    result = features("store", kind, roots, [ANNOTATED[kind](1, "a.png", "one dog")])
    assert (result["input"], result["reasons"]) == (1, {"ambiguous": 1})
    assert list(failures(result).values()) == ["ambiguous"]
    assert catalog("store", kind) == {}


def digest(path: str) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()


def test_no_type_is_left_out() -> None:
    from pipelines.datasets import DATASET_READERS, EMBEDDED

    # Images of a folder and CAPTCHAs have no annotations; `test_identity.py` tests their roots. The shards of the other
    # types contain images and captions; the tests of their readers test their identity.
    known: set[Any] = set(DATASET_READERS) - {"folder", "captcha", *EMBEDDED}
    assert known == set(ANNOTATED)
