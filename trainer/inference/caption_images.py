"""Runs `capt caption`: generates captions, plots the attention weights, and writes a page of the images."""

from pathlib import Path
from typing import Any

from features.extractors.extraction import EncodedImage
from features.inputs.image_urls import DownloadLimits
from schemas.errors import CaptError, RecordError, UsageError, to_record_error
from schemas.options import inference as inference_options
from trainer.figures.attention_maps import ANIMATIONS, AttentionMaps
from trainer.figures.figure_files import check_figure_path
from trainer.inference.captioned_page import build_card, render_captioned_page
from trainer.inference.image_inputs import check_images, find_images
from trainer.reports.page_files import check_page_path, write_page
from trainer.runs.captioner_ensemble import open_captioner
from trainer.runs.captioner_run import Caption

_PLOT_OPTIONS = {"attention_style", "attention_scale", "attention_heads"}


def caption(options: inference_options.Caption) -> dict[str, Any]:
    """Generates captions for images.

    With several images, the attention plots `OUT.png` become `OUT-1.png`, `OUT-2.png` and so on, in the order of the
    results.

    Returns:
        `{"results": [{"image", "text", "score"} or {"image", "error"}, …]}`; with `--attention-plot`, also `attention`
        (the plot's path) or `attention_error`; with several captions per image, also `captions` (text and score each).
        With `--page`, also `page_path`.

    Raises:
        UsageError: An option is invalid, or the model has no attention.
        StoreError: The run is not usable.
        NoUsableImageError: No image can be captioned.
        CaptError: The page or a plot cannot be written; `summary` has the results.
    """
    plot_path = (
        check_figure_path(options.attention_plot, "--attention-plot", ANIMATIONS) if options.attention_plot else None
    )
    page_path = check_page_path(options.page, "--page") if options.page else None
    _check_plot_options(options)
    run = open_captioner(options.run, options.ensemble, options.epoch)
    config = run.decoding(**options.generation())
    limits = DownloadLimits(allow_private=options.allow_private_addresses)
    images = [image for name in options.images for image in find_images(name, limits)]
    captions = run.caption_encoded((EncodedImage(b"", image.read) for image in images), config)
    rows, cards = [], []
    unwritten: list[CaptError] = []
    for number, (image, generated) in enumerate(zip(images, captions, strict=True), start=1):
        row = {"image": image.name, **to_json(generated)}
        if plot_path and isinstance(generated, Caption):
            path = plot_path.with_stem(f"{plot_path.stem}-{number}") if len(images) > 1 else plot_path
            try:
                row |= _plot_maps(path, generated, options)
            except UsageError:
                raise
            except CaptError as error:
                row["attention_error"] = str(error)
                unwritten.append(error)
        rows.append(row)
        if page_path:
            cards.append(build_card(run.resizer, image, generated, options))
    result: dict[str, Any] = {"results": rows}
    try:
        if page_path:
            write_page(page_path, render_captioned_page(run, cards, config))
            result["page_path"] = str(page_path)
        if unwritten:
            raise unwritten[0]
    except CaptError as error:
        # The captions are generated nevertheless.
        error.summary = result
        raise
    return check_images(result)


def to_json(generated: Caption | RecordError) -> dict[str, Any]:
    """Returns `text`, `score` and, if there are several, all `captions` of an image; or its `error`."""
    if isinstance(generated, RecordError):
        return {"error": str(generated)}
    best = {"text": generated.text, "score": generated.score}
    if not generated.others:
        return best
    return {**best, "captions": [{"text": one.text, "score": one.score} for one in (generated, *generated.others)]}


def _check_plot_options(options: inference_options.Caption) -> None:
    unused = sorted(name for name in options.model_fields_set & _PLOT_OPTIONS)
    if unused and not options.attention_plot and not options.page:
        flag = f"--{unused[0]}".replace("_", "-")
        raise UsageError("it requires --attention-plot or --page", location=flag, hint="Add --attention-plot maps.png.")
    if options.attention_heads and options.ensemble:
        message = "an ensemble has no attention heads of its own"
        raise UsageError(message, location="--attention-heads", hint="Omit the option, or use one run.")


def _plot_maps(path: Path, generated: Caption, options: inference_options.Caption) -> dict[str, str]:
    """Returns `attention`, the path of the plot, or `attention_error`; CaptError if the plot cannot be written."""
    try:
        maps = _make_maps(generated, options)
    except UsageError:
        raise
    except Exception as error:
        return {"attention_error": str(to_record_error("draw", error))}
    maps.save(path)
    return {"attention": str(path)}


def _make_maps(generated: Caption, options: inference_options.Caption) -> AttentionMaps:
    if generated.attention is None or generated.source is None:
        raise UsageError("the run's model has no attention", location="--attention-plot", hint="Omit the option.")
    image = generated.source.open_visible()
    return generated.plot_maps(image, options.attention_style, options.attention_scale, options.attention_heads)
