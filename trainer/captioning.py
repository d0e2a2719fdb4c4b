"""`capt caption`: captions of files, folders and archives, and pictures of what the captioner looked at."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from features.console import plain
from features.extraction import Source
from features.images import open_image
from features.references import Reference, is_image_name, walk
from schemas.errors import RecordError, UsageError
from trainer.plots import attention_figure, save_figure
from trainer.runs import Caption, Run, load_run


@dataclass(frozen=True)
class Picture:
    """An image that was named: what to call it, and how to get its bytes (which may raise RecordError)."""

    name: str
    read: Callable[[], bytes]


def caption(run: str | Path | Run, images: Sequence[str], attention: str | None = None) -> dict[str, Any]:
    """Captions of images.

    Args:
        run: str, Path or Run. A run directory, or an open run.
        images: sequence of str. Files, folders, and zip archives; of the latter two all files with an image's suffix.
        attention: str or None. Where to draw what the model looked at; with several images, `OUT.png` becomes
            `OUT-1.png`, `OUT-2.png` and so on in the order of the results.

    Returns:
        `{"results": [{"image", "text", "score"} or {"image", "error"}, …]}`, with `attention` where a picture was made.

    Raises:
        UsageError: no image was named, or the model does not attend.
        StoreError: the run cannot be used.
    """
    if not images:
        raise UsageError("no image was named")
    opened = run if isinstance(run, Run) else load_run(run)
    pictures = [picture for name in images for picture in find_pictures(name)]
    captions = opened.caption_sources(Source(b"", picture.read) for picture in pictures)
    results = []
    for number, (picture, made) in enumerate(zip(pictures, captions, strict=True), start=1):
        result = _result(picture, made)
        if attention and isinstance(made, Caption):
            path = numbered(Path(attention), number, len(pictures))
            draw_attention(picture.read(), made, path)
            result["attention"] = str(path)
        results.append(result)
    return {"results": results}


def print_captions(result: dict[str, Any]) -> None:
    """Print what `caption` returned, a line an image: its name, a tab, and its caption or why it has none."""
    for row in result["results"]:
        print(plain(row["image"]), plain(row["text"] if "text" in row else row["error"]), sep="\t")


def find_pictures(name: str) -> Iterator[Picture]:
    """The images that a name stands for: the file itself, or those in the folder or archive, by name.

    A file that is not there, or an archive that cannot be read, is a picture still: reading it says so, and costs no
    other.
    """
    path = Path(name)
    if not (path.is_dir() or path.suffix.lower() == ".zip"):
        yield Picture(name, Reference(str(path.absolute())).read)
        return
    try:
        found = sorted((entry for entry in walk(name) if is_image_name(entry.name)), key=lambda entry: entry.name)
    except UsageError as error:
        yield Picture(name, partial(_fail, "unreadable", error.what))
        return
    if not found:
        yield Picture(name, partial(_fail, "empty", "it holds no image"))
    yield from (Picture(str(path / entry.name), entry.reference.read) for entry in found)


def _fail(reason: str, detail: str) -> bytes:
    raise RecordError("find", reason, detail)


def draw_attention(data: bytes, made: Caption, path: Path) -> None:
    """Draw a caption's attention over its image.

    Args:
        data: bytes. The encoded image.
        made: Caption. What was said of it.
        path: Path. The picture to write.

    Raises:
        UsageError: the model does not attend, or the path's suffix names no picture format.
    """
    if made.attention is None:
        raise UsageError("the run's model does not attend, so there is nothing to draw", where="--attention")
    image = open_image(data)
    image.thumbnail((600, 600))
    save_figure(attention_figure(image, made.words, made.attention), path)


def numbered(path: Path, number: int, count: int) -> Path:
    """The path of one picture of `count`: `OUT.png`, or `OUT-3.png` where there are several."""
    return path if count == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def _result(picture: Picture, made: Caption | RecordError) -> dict[str, Any]:
    if isinstance(made, RecordError):
        return {"image": picture.name, "error": str(made)}
    return {"image": picture.name, "text": made.text, "score": made.score}
