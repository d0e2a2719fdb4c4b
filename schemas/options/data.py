"""Declares the options of the commands that fetch and generate datasets."""

from typing import Annotated

from schemas.options.base import Argument, Count, Natural, Option, Options, option
from schemas.options.prepare import ANNOTATIONS, WHOLE_DESCRIPTIONS, SampledDatasetType

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


class SynthSample(Options):
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
        "Format of the dataset: coco, karpathy, flickr8k, flickr30k, iapr, csv, jsonl, or folder (images without "
        "captions).",
    )
    annotations: tuple[str, ...] = ANNOTATIONS
    whole_descriptions: bool = WHOLE_DESCRIPTIONS
    output: str = option("sample", "Output directory. Must be new, empty, or contain the same sample.", "DIR")


class SynthCaptcha(Options):
    """Generate CAPTCHA images and their labels in the layout of the published dataset."""

    out: NewDirectory
    num_images: Annotated[Count, Option("Number of images.")]
    num_labelled: Natural | None = option(
        None,
        "Number of images, from the first on, whose labels are written to spec_train_val.txt. truth.txt always "
        "contains all labels. [default: 6/7 of --num-images]",
    )
    seed: Natural = GENERATOR_SEED
    font_dir: str | None = option(
        None, "Directory with .ttf or .otf files. [default: four fonts that ship with Matplotlib]", "DIR"
    )
    word_list: str | None = option(
        None,
        "File with one label per line, three to five letters a-z. [default: 2,500 words that ship with capt]",
        "FILE",
    )
    num_strokes: str = option(
        "8,20", "Fewest and most lines, arcs, ellipses and dots per image. Fewer are easier to read.", "MIN,MAX"
    )
    max_rotation: float = option(24.0, "Maximum rotation of a character in degrees, 0 to 90.", "DEGREES")
    width: Count = option(600, "Width of the images in pixels, 100 to 600. Characters keep their size if they fit.")
    height: Count = option(320, "Height of the images in pixels, 100 to 320. Characters keep their size if they fit.")
