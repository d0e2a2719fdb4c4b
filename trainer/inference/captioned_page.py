"""Renders the HTML page of `capt caption`: every image with its captions, and attention maps if there are any."""

from collections.abc import Sequence

from features.images.resize import Resizer
from schemas.errors import RecordError
from schemas.options import inference as inference_options
from trainer.decoding.generation import GenerationConfig
from trainer.inference.image_inputs import ImageInput
from trainer.reports.markup import Html, attention_details, caption_list, card, document, element, header, label
from trainer.reports.plots import draw_attention_maps
from trainer.runs.captioner_run import Caption, CaptionerRun


def build_card(
    resizer: Resizer, image: ImageInput, generated: Caption | RecordError, options: inference_options.Caption
) -> Html:
    """Builds the card of an image: its captions, best first, or its error."""
    name = label(element("code", image.name))
    if isinstance(generated, RecordError):
        return card(None, image.name, name, element("p", f"no caption: {generated}", class_="notice"))
    data = _read(image)
    style = (options.attention_style, options.attention_scale, options.attention_heads)
    return card(
        data,
        generated.text,
        name,
        element("blockquote", generated.text or "(empty)", dir="auto"),
        label(f"log-probability {generated.score:.2f}"),
        caption_list(one.text or "(empty)" for one in generated.others) if generated.others else "",
        footer=attention_details(draw_attention_maps(data, generated, resizer, *style)),
    )


def render_captioned_page(run: CaptionerRun, cards: Sequence[Html], config: GenerationConfig) -> str:
    """Renders the page as an HTML document."""
    if config.temperature is None:
        decoding = f"beam search of width {config.num_beams}" if config.num_beams > 1 else "greedy"
    else:
        decoding = f"sampling at temperature {config.temperature:g}, seed {config.seed}"
    title = f"Captions of {run.path.name}"
    values = {"model": run.metadata.model, "decoding": decoding, "images": f"{len(cards):,}"}
    return document(title, header(title, values=values), element("main", *cards))


def _read(image: ImageInput) -> bytes | None:
    """Reads an image again; None if it can no longer be read."""
    try:
        return image.read()
    except Exception:
        return None
