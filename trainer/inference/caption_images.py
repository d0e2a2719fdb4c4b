"""`capt caption`: captions of files, folders and archives, and pictures of what the captioner looked at."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from features.extractors.extraction import EncodedImage
from features.images.decode import open_image
from features.images.resizer import Resizer
from features.io.locations import local_path
from features.references.downloads import DownloadLimits
from schemas.errors import RecordError, UsageError, to_record_error
from schemas.options import inference as options_of
from schemas.terminal.printable import printable
from trainer.data.image_inputs import ImageInput, check_images, find_images
from trainer.reports.plots import attention_figure, save_figure
from trainer.runs.captioner_run import Caption, CaptionerRun
from trainer.runs.run import open_run


def caption(options: options_of.Caption) -> dict[str, Any]:
    """Generates captions for images.

    Args:
        options: The run, the images as `trainer.data.image_inputs.find_images` takes them, and how captions are
            generated. With several images, the attention maps `OUT.png` become `OUT-1.png`, `OUT-2.png` and so on in
            the order of the results.

    Returns:
        `{"results": [{"image", "text", "score"} or {"image", "error"}, …]}`, with `attention` where a picture was made
        or `attention_error` where it cannot be, and `captions` (a list of text and score) where several were asked for.

    Raises:
        UsageError: an option is out of range, or the model does not attend.
        StoreError: the run cannot be used.
        NoUsableImageError: no image can be captioned.
    """
    drawn = local_path(options.attention_plot, "--attention-plot") if options.attention_plot else None
    opened = open_run(options.run, CaptionerRun)
    chosen = opened.decoding(**options.generation())
    limits = DownloadLimits(allow_private=options.allow_private_addresses)
    pictures = [picture for name in options.images for picture in find_images(name, limits)]
    captions = opened.caption_encoded((EncodedImage(b"", picture.read) for picture in pictures), chosen)
    results = []
    for number, (picture, made) in enumerate(zip(pictures, captions, strict=True), start=1):
        result = {"image": picture.name, **as_result(made)}
        if drawn and isinstance(made, Caption):
            path = numbered(drawn, number, len(pictures))
            result |= _attention(picture, made, path, opened.resizer)
        results.append(result)
    return check_images({"results": results})


def print_captions(result: dict[str, Any]) -> None:
    """Print what `caption` returned, a line an image: its name, a tab, and its caption or why it has none."""
    for row in result["results"]:
        print(printable(row["image"]), printable(row["text"] if "text" in row else row["error"]), sep="\t")


def _attention(picture: ImageInput, made: Caption, path: Path, fitting: Resizer) -> dict[str, str]:
    """Draws the attention of one image; an image that cannot be drawn costs no other image."""
    try:
        figure = _attention_figure(picture.read(), made, fitting)
    except UsageError:
        raise
    except Exception as error:
        return {"attention_error": str(to_record_error("draw", error))}
    save_figure(figure, path)
    return {"attention": str(path)}


def draw_attention(data: bytes, made: Caption, path: Path, fitting: Resizer) -> None:
    """Draw a caption's attention over what the model saw of its image.

    Args:
        data: bytes. The encoded image.
        made: Caption. What was said of it.
        path: Path. The picture to write.
        fitting: Fitting. How the run brings images to the network's size.

    Raises:
        UsageError: the model does not attend, or the path's suffix names no picture format.
    """
    save_figure(_attention_figure(data, made, fitting), path)


def _attention_figure(data: bytes, made: Caption, fitting: Resizer) -> Figure:
    if made.attention is None:
        raise UsageError("the run's model does not attend, so there is nothing to draw", location="--attention-plot")
    image = open_image(data)
    image.thumbnail((600, 600))
    return attention_figure(fitting.crop_visible(image), made.words, made.attention)


def numbered(path: Path, number: int, count: int) -> Path:
    """The path of one picture of `count`: `OUT.png`, or `OUT-3.png` where there are several."""
    return path if count == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")


def as_result(made: Caption | RecordError) -> dict[str, Any]:
    """What JSON says of an image: `text` and `score`, and all `captions` where there are several; or its `error`."""
    if isinstance(made, RecordError):
        return {"error": str(made)}
    best = {"text": made.text, "score": made.score}
    if not made.others:
        return best
    return {**best, "captions": [{"text": one.text, "score": one.score} for one in (made, *made.others)]}
