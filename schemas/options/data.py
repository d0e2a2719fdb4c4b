"""Declares the options of the commands that fetch and generate datasets."""

from typing import Annotated

from schemas import defaults
from schemas.choices import CaptchaBackground, CaptchaLayout
from schemas.options.base import Argument, Count, Natural, Option, Options, option
from schemas.options.prepare import (
    ALLOW_PRIVATE_ADDRESSES,
    ANNOTATIONS,
    HASH_COLUMN,
    IGNORE_ROBOTS_TAG,
    MAX_FAILURES_TEXT,
    MAX_IMAGE_BYTES,
    MAX_IMAGE_PIXELS,
    WHOLE_DESCRIPTIONS,
    ColumnOptions,
    SampledDatasetType,
)

NewDirectory = Annotated[str, Argument("Output directory. Must be new, empty, or contain the same dataset.", "DIR")]
GENERATOR_SEED = option(0, "Seed of the random generator.")


class Fetch(Options):
    """Download the published files of a dataset. Interrupted downloads resume. Checksums are verified.

    No checksum of iapr is published. The SHA-256 of its first download is recorded, and verified from then on.
    """

    dataset: Annotated[
        str,
        Argument("Dataset to download: coco2014, coco2017, flickr8k, iapr or conceptual (lists of URLs).", "NAME"),
    ]
    directory: Annotated[str, Argument("Directory to download to. Created if it does not exist.", "DIR")]
    only: tuple[str, ...] = option(
        (),
        "Name of a file to download. Repeatable. [default: all files except caption_datasets.zip, Karpathy's splits]",
        "FILENAME",
    )
    mirror_url: str | None = option(
        None, "Base URL to download from. Each file is expected at URL/FILENAME. [default: the publisher's URLs]", "URL"
    )


class FetchUrls(ColumnOptions):
    """Download the images of lists of URLs, and write them with their captions as WebDataset shards.

    Each shard is NAME.tar, with the images and captions, and NAME.parquet, with every record and the reason of each
    failure. Images are not resized. The same command resumes an interrupted run.
    """

    lists: Annotated[
        tuple[str, ...],
        Argument(
            "List of URLs (.parquet, .csv, .tsv or .jsonl, also compressed), its directory, or a pattern such as "
            "'part-{000..127}.parquet'; local, s3:// or gs://. Repeatable.",
            "LIST",
        ),
    ]
    directory: Annotated[
        str,
        Argument("Local directory of the shards. Must be new, empty, or contain shards of this command.", "DIR"),
    ]
    hash_column: str | None = HASH_COLUMN
    shard_size: Count = option(10_000, "Number of records per shard. The last one has fewer.")
    num_threads: Count = option(
        defaults.DOWNLOAD_THREADS, "Maximum number of simultaneous downloads, of which each host has at most two."
    )
    max_failures: str = option(defaults.MAX_DOWNLOAD_FAILURES, MAX_FAILURES_TEXT, "N|P%")
    max_image_pixels: Count = MAX_IMAGE_PIXELS
    max_image_bytes: Count = MAX_IMAGE_BYTES
    allow_private_addresses: bool = ALLOW_PRIVATE_ADDRESSES
    ignore_robots_tag: bool = IGNORE_ROBOTS_TAG


class Inspect(ColumnOptions):
    """Show what a directory, archive, table or bucket prefix is, and the commands that prepare it.

    Several paths are one dataset, such as `annotations.json images`. Only the first files and records are read. The
    store is not needed. If several dataset types fit, the best is the first. Files that no command uses are listed; if
    one of the paths is among them, the exit code is 2.
    """

    paths: Annotated[
        tuple[str, ...],
        Argument(
            "Directory, archive (.zip, .tar), annotation or label file, Parquet file, array (.npy), or pattern of "
            "shards ('shards/{00000..00099}.tar'); local, s3:// or gs://. Repeatable.",
            "PATH",
        ),
    ]
    label_column: str | None = option(
        None,
        "Column of a table with the labels of CAPTCHAs. [default: label, text, word or another usual name]",
        "NAME",
    )
    num_examples: Count = option(5, "Number of records to show.")


class SynthScenes(Options):
    """Generate images of colored shapes with five captions each, in COCO layout."""

    out: NewDirectory
    num_images: Count = option(400, "Number of scenes, at least 5.")
    seed: Natural = GENERATOR_SEED
    objects_per_scene: str = option(
        "1,2,3", "Allowed numbers of objects per scene, comma-separated: some of 1, 2 and 3.", "COUNTS"
    )
    held_out_fraction: float = option(
        0.0, "Fraction of the color-shape-relation combinations that no training scene contains, 0 to 0.25.", "P"
    )


class SynthSample(ColumnOptions):
    """Write a seeded sample of a dataset's images and their captions as a small dataset.

    The output has images.zip and, if there are captions, captions.jsonl (dataset type jsonl). Images keep their splits.
    """

    images: Annotated[
        tuple[str, ...],
        Argument(
            "Directory or archive (.zip, uncompressed .tar) with images; local, s3:// or gs://. Repeatable.", "PATH"
        ),
    ]
    rate: float = option(0.01, "Fraction of the images, above 0 and at most 1. At least one image is written.", "P")
    seed: Natural = option(42, "Seed of the sample.")
    dataset_type: SampledDatasetType = option(
        "folder",
        "Format of the dataset: coco, karpathy, flickr8k, flickr30k, iapr, csv, jsonl, webdataset, "
        "huggingface, imagefolder, or folder (images without captions).",
    )
    annotations: tuple[str, ...] = ANNOTATIONS
    whole_descriptions: bool = WHOLE_DESCRIPTIONS
    output: str = option("sample", "Output directory. Must be new, empty, or contain the same sample.", "DIR")


class SynthCaptcha(Options):
    """Generate CAPTCHA images and their labels, in the layout of the published dataset or as files named by label.

    Every value that is a maximum or a range is chosen at random per image or character.
    """

    out: NewDirectory
    num_images: Annotated[Count, Option("Number of images.")]
    num_labelled: Natural | None = option(
        None,
        "Number of images, from the first on, whose labels are written to spec_train_val.txt. truth.txt always "
        "contains all labels. Not valid with --layout names. [default: 6/7 of --num-images]",
    )
    layout: CaptchaLayout = option(
        "published",
        "Layout of the output: published (words_captcha/a0.png and label files), or names (images/LABEL.png; further "
        "images of a label are LABEL.2.png, LABEL.3.png, ...).",
    )
    seed: Natural = GENERATOR_SEED
    charset: str | None = option(
        None, "Characters of random labels, such as 0123456789. [default: labels are words]", "CHARS"
    )
    lengths: str | None = option(
        None,
        "Fewest and most characters of a label. Words of other lengths are not used. [default: 3,5 with --charset; "
        "otherwise those of the words]",
        "MIN,MAX",
    )
    word_list: str | None = option(
        None,
        "File with one label per line, without white space. Not valid with --charset. [default: 2,500 words that ship "
        "with capt]",
        "FILE",
    )
    font_dir: str | None = option(
        None,
        "Directory with .ttf or .otf files. Fonts that lack a character of the labels are skipped and reported. "
        "[default: four fonts that ship with Matplotlib]",
        "DIR",
    )
    width: Count = option(600, "Width of the images in pixels, 16 to 4096.")
    max_width: Count | None = option(
        None, "Maximum width: images have random widths from --width to N pixels. [default: --width]"
    )
    height: Count = option(
        320, "Height of the images in pixels, 16 to 4096. Characters keep their size from 100 to 320 if they fit."
    )
    label_width: str | None = option(
        None, "Fractions of the width that the label covers. [default: a third to two thirds]", "MIN,MAX"
    )
    background: CaptchaBackground | None = option(
        None,
        "Background: speckles (white with gray pixels), plain (a light color), noise (a light color with noise) or "
        "gradient (between two light colors). [default: speckles]",
    )
    background_dir: str | None = option(
        None, "Directory with images, of which random parts are the backgrounds. Not valid with --background.", "DIR"
    )
    num_strokes: str = option(
        "8,20", "Fewest and most lines, arcs, ellipses and dots per image. Fewer are easier to read.", "MIN,MAX"
    )
    stroke_types: str = option(
        "line,arc,ellipse,dot", "Shapes that --num-strokes counts, comma-separated: some of the default.", "NAMES"
    )
    max_rotation: float = option(24.0, "Maximum rotation of a character in degrees, 0 to 90.", "DEGREES")
    max_shear: float = option(0.0, "Maximum slant of a character in degrees, 0 to 45.", "DEGREES")
    max_overlap: float = option(
        0.0, "Maximum overlap of two neighboring characters as a fraction of the font size, 0 to 0.5.", "FRACTION"
    )
    weight_change: str = option(
        "0,0",
        "Pixels by which the edges of the characters are moved outward, -10 to 10. Negative values make lines thinner, "
        "but never remove them.",
        "MIN,MAX",
    )
    max_warp: float = option(
        0.0, "Maximum displacement of a pixel by waves in each direction in pixels, 0 to an eighth of --height.", "N"
    )
    max_blur: float = option(0.0, "Maximum radius of a Gaussian blur in pixels, 0 to 10.", "N")
