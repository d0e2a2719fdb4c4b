"""Declares the options of the commands that use a trained run."""

from typing import Annotated

from schemas.choices import Split
from schemas.options.base import Argument, Count, Natural, Option, Options
from schemas.options.generation import GenerationOptions, SearchOptions
from schemas.options.shared import AllowPrivateAddresses, CaptchaImages, ImageArguments, RunArgument, Strategy


class Evaluate(GenerationOptions):
    """Evaluate runs on a held-out split.

    Captioners: BLEU, METEOR, ROUGE-L, CIDEr-D. CAPTCHA recognizers: exact-match accuracy and character error
    rate (CER).
    """

    runs: Annotated[
        tuple[str, ...],
        Argument("Run directory, or STORE/models/NAME. Repeatable. All runs must have the same task.", "RUN"),
    ]
    split: Annotated[
        Split,
        Option(
            "Split to evaluate: train, val, test or unused. If test has no captioned or labeled images, val "
            "is evaluated, and a note reports it."
        ),
    ] = "test"
    store: Annotated[
        str | None,
        Option(
            "Store to evaluate on: a local directory, or an s3:// or gs:// URI.",
            "STORE",
            default="the store that the run was trained from",
        ),
    ] = None
    num_examples: Annotated[
        Natural,
        "Number of best and of worst captions on the HTML page, or of the worst recognition errors. 0 writes no page.",
    ] = 6
    labels: Annotated[
        str | None,
        Option(
            "File with ground-truth labels, one `ID LABEL` per line (`a0 thus`). Replaces the labels in the "
            "store. CAPTCHA recognizers only.",
            "FILE",
        ),
    ] = None


class Caption(GenerationOptions):
    """Generate captions for images with a trained captioner."""

    run: RunArgument
    images: ImageArguments
    attention_plot: Annotated[
        str | None,
        Option(
            "Image file for the attention maps (such as maps.png), one panel per word. With several images, a "
            "number is added to the name. Attention models only.",
            "FILE",
        ),
    ] = None
    num_return_sequences: Annotated[
        Count | None,
        Option(
            "Number of captions to return per image, best first. At most --num-beams, unless --temperature is given.",
            default="1",
        ),
    ] = None
    allow_private_addresses: AllowPrivateAddresses = False


class Recognize(Options):
    """Recognize the text in CAPTCHA images with a trained recognizer."""

    run: RunArgument
    images: ImageArguments
    decoding_strategy: Strategy = "greedy"
    allow_private_addresses: AllowPrivateAddresses = False


class PredictCaptions(GenerationOptions):
    """Caption a set of images and write one JSON object per image. The same command resumes an interrupted run."""

    run: RunArgument
    images: Annotated[tuple[str, ...], Option("Image, directory, .zip or .tar file, or a URI. Repeatable.", "PATH")]
    output: Annotated[str, Option("Output file in JSON Lines format. Incomplete output is kept in OUT.part.", "FILE")]


class PredictCaptcha(Options):
    """Recognize a range of CAPTCHA images and write one `ID LABEL` line per image.

    The same command resumes an interrupted run.
    """

    run: RunArgument
    images: CaptchaImages
    ids: Annotated[
        str, Option("Range of image numbers FROM:TO. TO is excluded, as in a Python slice: 120000:140000.", "FROM:TO")
    ]
    output: Annotated[
        str,
        Option("Output file, one `a120000 fail` line per image. Written only when every image has a label.", "FILE"),
    ]
    decoding_strategy: Strategy = "greedy"
    fallback_label: Annotated[
        str | None,
        Option(
            "Label to write for images that are missing or cannot be read, letters a to z.",
            "LABEL",
            default="stop with an error and write no file",
        ),
    ] = None


class Export(SearchOptions):
    """Export a run as a TensorFlow SavedModel that maps encoded images to captions or labels.

    The SavedModel needs TensorFlow only. The options of beam search are for captioners; recognizers are always exported
    with greedy decoding.
    """

    run: RunArgument
    out: Annotated[str, Argument("Output directory. Must not exist.", "DIR")]
