"""Declares the options of the commands that fetch and generate datasets."""

from typing import Annotated

from schemas.options.base import Argument, Count, Natural, Option, Options
from schemas.options.shared import GeneratorSeed, NewDirectory


class Fetch(Options):
    """Download the published files of a dataset. Interrupted downloads resume. Checksums are verified."""

    dataset: Annotated[str, Argument("Dataset to download: coco2014, coco2017, flickr8k or conceptual.", "NAME")]
    directory: Annotated[str, Argument("Directory to download to. Created if it does not exist.", "DIR")]
    only: Annotated[
        tuple[str, ...],
        Option(
            "Name of a file to download. Repeatable.",
            "FILENAME",
            default="all files; caption_datasets.zip only if named",
        ),
    ] = ()
    mirror_url: Annotated[
        str | None,
        Option(
            "Base URL to download from. Each file is expected at URL/FILENAME.", "URL", default="the publisher's URLs"
        ),
    ] = None


class SynthScenes(Options):
    """Generate images of colored shapes with five captions each, in COCO layout."""

    out: NewDirectory
    num_images: Annotated[Count, Option("Number of scenes, at least 5.")] = 400
    seed: GeneratorSeed = 0
    objects_per_scene: Annotated[
        str, Option("Allowed numbers of objects per scene, comma-separated: some of 1, 2 and 3.", "COUNTS")
    ] = "1,2,3"
    held_out_fraction: Annotated[
        float,
        Option("Fraction of the color-shape-relation combinations that no training scene contains, 0 to 0.25.", "P"),
    ] = 0.0


class SynthCaptcha(Options):
    """Generate CAPTCHA images and their labels in the layout of the published dataset."""

    out: NewDirectory
    num_images: Annotated[Count, Option("Number of images.")]
    num_labelled: Annotated[
        Natural | None,
        Option(
            "Number of images, from the first on, whose labels are written to spec_train_val.txt. truth.txt always "
            "contains all labels.",
            default="6/7 of --num-images",
        ),
    ] = None
    seed: GeneratorSeed = 0
    font_dir: Annotated[
        str | None, Option("Directory with .ttf or .otf files.", "DIR", default="four fonts that ship with Matplotlib")
    ] = None
    word_list: Annotated[
        str | None,
        Option(
            "File with one label per line, three to five letters a-z.",
            "FILE",
            default="2,500 words that ship with capt",
        ),
    ] = None
