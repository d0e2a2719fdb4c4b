"""Declares the options of the commands that use a trained run, and those of caption generation."""

from typing import Annotated, Any, Literal

from pydantic import Field

from schemas.choices import AttentionScale, AttentionStyle, DecodingStrategy, PublishedDataset, Split
from schemas.options.base import Argument, Count, Natural, Option, Options, option
from schemas.options.shared import CaptchaImages

RunArgument = Annotated[
    str, Argument("Training run: a run directory, or STORE/models/NAME for the champion of a registered model.", "RUN")
]
ImageArguments = Annotated[
    tuple[str, ...],
    Argument("Image, directory, .zip or .tar file, or a URI (s3://, gs://, http://, https://). Repeatable.", "PATH"),
]
EPOCH = option(
    None,
    "Epoch whose weights are used, one of those that the run has kept (hyperparameter keep_epochs). [default: the best "
    "epoch]",
    "N",
)
ENSEMBLE = option(
    (),
    "Further run with the same vocabulary that predicts together with RUN: each step takes the mean of the "
    "probabilities of all runs. It uses its best epoch. Captioners only. Repeatable.",
    "RUN",
)
ALLOW_PRIVATE_ADDRESSES = option(False, "Allow http:// and https:// URLs that resolve to non-public IP addresses.")
STRATEGY = option(
    "greedy",
    "Decoding strategy: greedy; beam (CTC prefix beam search, width 10); or lexicon (the most probable label "
    "of the train split).",
)


MIN_CONFIDENCE = option(
    None,
    "Smallest confidence of a label, above 0 and at most 1. Labels with less, or without a character, are left open. "
    "[default: off]",
    "P",
)
OPEN_DIR = option(
    None,
    "Directory for copies of the images whose label is left open, with labels.csv, which has the predicted labels for "
    "correction. Must not exist. Requires --min-confidence.",
    "DIR",
)
NUM_RETURN_SEQUENCES = option(
    None,
    "Number of captions to return per image, best first. At most --num-beams, unless --temperature is given. "
    "[default: 1]",
)
Probability = Annotated[float, Field(gt=0, le=1)]


class SearchOptions(Options):
    """Settings of beam search; None selects the default of the run."""

    def generation(self) -> dict[str, Any]:
        """Returns the options of caption generation that were set, by name."""
        fields = {*GenerationOptions.model_fields, "num_return_sequences"}
        given = self.model_dump(include=fields, exclude_unset=True)
        return {name: value for name, value in given.items() if value not in (None, ())}

    num_beams: Count | None = option(None, "Beam width. 1 is greedy decoding. [default: 1]")
    length_penalty: float | None = option(
        None,
        "Exponent of the caption length that divides the log-probability when beams are ranked. 0 favors short "
        "captions; 1 ranks by the mean per token. Must be 0 or more. [default: 1.0]",
    )
    no_repeat_ngram_size: Count | None = option(
        None, "Length in tokens of the n-grams that a caption may contain only once. [default: off]"
    )
    bad_words: tuple[str, ...] = option(
        (), "Word that is never generated. It must be in the vocabulary of the run. Repeatable.", "WORD"
    )
    max_new_tokens: Count | None = option(
        None,
        "Maximum number of generated tokens per caption. The end token counts. "
        "[default: the run's hyperparameter max_new_tokens; if null, the length of the longest training caption plus "
        "one for the end token]",
    )


class GenerationOptions(SearchOptions):
    """Settings of beam search and sampling; None selects the default of the run."""

    temperature: float | None = option(
        None,
        "Softmax temperature of sampling, which replaces beam search: 0 (greedy decoding), or from 1e-6 to 1e6. Below "
        "1 makes captions more conservative, above 1 more diverse. Cannot be combined with a beam width above 1. "
        "[default: off]",
    )
    top_k: Count | None = option(
        None, "Number of most probable tokens to sample from. Requires --temperature. [default: off]"
    )
    top_p: float | None = option(
        None,
        "Nucleus sampling: sample from the most probable tokens whose total probability reaches X, above 0 and at "
        "most 1. Requires --temperature. [default: off]",
    )
    seed: Natural = option(0, "Seed of sampling. Used only with --temperature.")


class Evaluate(GenerationOptions):
    """Evaluate runs on a held-out split, or grade answer files.

    Captioners: BLEU, METEOR, ROUGE-L, CIDEr-D. CAPTCHA recognizers: exact match and character error rate (CER). With
    --answers: the exact match of CAPTCHA answer files, without a run.
    """

    runs: Annotated[
        tuple[str, ...],
        Argument(
            "Run directory, or STORE/models/NAME. Repeatable. All runs must have the same task. Required without "
            "--answers.",
            "RUN",
        ),
    ] = ()
    split: Split = option(
        "test",
        "Split to evaluate: train, val, test or unused. If test has no captioned or labeled images, val is "
        "evaluated, and a note reports it.",
    )
    dataset: tuple[str, ...] = option(
        (),
        "Dataset in the store to evaluate on. Repeatable. Its images must be in the run's feature table. [default: the "
        "datasets that the run was trained on]",
        "NAME",
    )
    caption_table: tuple[str, ...] = option(
        (),
        "Caption table with the references of a --dataset, by fingerprint or the beginning of one. Repeatable. "
        "Captioners only. [default: the table that the run was trained on, or the only one of the dataset]",
        "FINGERPRINT",
    )
    epoch: Count | None = EPOCH
    ensemble: tuple[str, ...] = ENSEMBLE
    store: str | None = option(
        None,
        "Store to evaluate on: a local directory, or an s3:// or gs:// URI. [default: the store that the run was "
        "trained from]",
        "STORE",
    )
    examples: str | None = option(
        None,
        "Kinds of examples on the HTML page, in order: best, worst and random, separated by commas, each with an "
        "optional number: best,worst,random:10. [default: best,worst for captioners; worst for recognizers]",
        "KIND[:N],...",
    )
    teacher_forced: Natural = option(
        0,
        "Number of captions whose words are predicted from the true words before them, as in training, and shown "
        "beside the true ones. Captioners only.",
    )
    attention: Natural = option(
        0,
        "Number of images on which the attention is tested: for each word of the caption, the most attended region is "
        "blanked, and the drop of the word's log-probability is compared with that for a random region. Attention "
        "models only.",
    )
    num_examples: Natural = option(
        6, "Number of examples of each kind that --examples states no number for. Without examples, no page is written."
    )
    seed: Natural = option(
        0,
        "Seed of sampling, random examples and random regions. Used only with --temperature, --examples or "
        "--attention.",
    )
    slice: tuple[str, ...] = option(
        (),
        "Also score the images of a subject: those of which a reference matches REGEX, regardless of case. animals, "
        "people, colours, food and outdoors need no REGEX. Captioners only. Repeatable.",
        "NAME[=REGEX]",
    )
    beside: Literal["published"] | PublishedDataset | None = option(
        None,
        "Also show the run beside published scores: published for those of the dataset that has the name of the run's, "
        "or flickr8k, flickr30k or coco. Captioners only. [default: off]",
    )
    labels: str | None = option(
        None,
        "File with ground-truth labels: one `ID LABEL` per line (`a0 thus`), or a table (.csv, .tsv, .jsonl, .parquet) "
        "with image IDs and labels. Replaces the labels in the store. Recognizers and --answers only.",
        "FILE",
    )
    answers: tuple[str, ...] = option(
        (),
        "File with answers, in the formats of --labels, or a directory with .txt files. It is compared with --labels, "
        "and no run is needed. Repeatable; files after it, such as those of a pattern, are graded, too.",
        "PATH",
    )
    ids: str | None = option(
        None,
        "With --answers: range of image numbers FROM:TO that are graded. TO is excluded. [default: all of --labels]",
        "FROM:TO",
    )
    fold_case: bool = option(
        False,
        "With --answers: ignore case, as `capt prepare captcha --fold-case` does. A run is evaluated with folded case "
        "if its dataset has it.",
    )


class Report(Options):
    """Write a report of a run as one HTML page that prints well.

    It shows data, training images, model, settings, curves, scores, errors and machine. It trains and evaluates
    nothing: scores and errors are those of earlier `capt evaluate` commands.
    """

    run: RunArgument
    output: str | None = option(None, "HTML file to write. [default: RUN/report.html]", "FILE")
    split: Split | None = option(
        None,
        "Evaluated split whose errors are shown: train, val, test or unused. [default: the first evaluated one of "
        "test, val, train and unused]",
    )
    store: str | None = option(
        None,
        "Store with the data of the run: a local directory, or an s3:// or gs:// URI. [default: the store that the run "
        "was trained from]",
        "STORE",
    )
    num_examples: Natural = option(6, "Number of training images, and of errors, on the page.")


class Caption(GenerationOptions):
    """Generate captions for images with a trained captioner."""

    run: RunArgument
    images: ImageArguments
    epoch: Count | None = EPOCH
    ensemble: tuple[str, ...] = ENSEMBLE
    attention_plot: str | None = option(
        None,
        "Image file for the attention maps (such as maps.png), one panel per word and one for the end token. A .gif or "
        ".webp file is an animation, word by word. With several images, a number is added to the name. Attention "
        "models only.",
        "FILE",
    )
    attention_style: AttentionStyle = option(
        "smooth",
        "Style of the attention maps: smooth (upsampled to the image with a Gaussian filter) or grid (one gray "
        "rectangle per spatial location). Requires --attention-plot or --page.",
    )
    attention_scale: AttentionScale = option(
        "word",
        "Largest value of the color scale of the attention maps, which begins at 0: word (the maximum of each map) or "
        "caption (the maximum of all maps of the caption, so that colors are comparable). Requires --attention-plot or "
        "--page.",
    )
    attention_heads: bool = option(
        False,
        "Plot one row of attention maps per layer and head instead of their mean. Requires --attention-plot or --page.",
    )
    page: str | None = option(
        None,
        "HTML file with all images and their captions, in one file without links, and with attention maps if the model "
        "has attention.",
        "FILE",
    )
    num_return_sequences: Count | None = NUM_RETURN_SEQUENCES
    allow_private_addresses: bool = ALLOW_PRIVATE_ADDRESSES


class Recognize(Options):
    """Recognize the text in CAPTCHA images with a trained recognizer."""

    run: RunArgument
    images: ImageArguments
    epoch: Count | None = EPOCH
    decoding_strategy: DecodingStrategy = STRATEGY
    min_confidence: Probability | None = MIN_CONFIDENCE
    open_dir: str | None = OPEN_DIR
    allow_private_addresses: bool = ALLOW_PRIVATE_ADDRESSES


class PredictCaptions(GenerationOptions):
    """Caption a set of images and write one JSON object per image. The same command resumes an interrupted run."""

    run: RunArgument
    images: Annotated[tuple[str, ...], Option("Image, directory, .zip or .tar file, or a URI. Repeatable.", "PATH")]
    output: Annotated[str, Option("Output file in JSON Lines format. Incomplete output is kept in FILE.part.", "FILE")]
    epoch: Count | None = EPOCH
    ensemble: tuple[str, ...] = ENSEMBLE


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
        Option(
            "Output file, one `a120000 fail` line per image. Separator and line ends are those of the label file that "
            "the dataset was prepared with. Written only when every image has a label.",
            "FILE",
        ),
    ]
    epoch: Count | None = EPOCH
    decoding_strategy: DecodingStrategy = STRATEGY
    min_confidence: Probability | None = MIN_CONFIDENCE
    open_dir: str | None = OPEN_DIR
    fallback_label: str | None = option(
        None,
        "Label to write for images that are missing or cannot be read. Its characters must be in the run's charset. "
        "[default: stop with an error and write no file]",
        "LABEL",
    )


class Export(SearchOptions):
    """Export a run as a TensorFlow SavedModel that maps encoded images to captions or labels.

    The SavedModel needs TensorFlow only. The options of beam search are for captioners; recognizers are always exported
    with greedy decoding.
    """

    run: RunArgument
    out: Annotated[str, Argument("Output directory. Must not exist.", "DIR")]
    epoch: Count | None = EPOCH
