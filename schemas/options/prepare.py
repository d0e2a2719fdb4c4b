"""Declares the options of `capt prepare`."""

from typing import Annotated, Literal

from schemas.choices import Compression, ResizeMethodOption, ResizeMode, Standardizer
from schemas.options.base import Count, Option, Options
from schemas.options.extractor import ExtractorOptions
from schemas.options.shared import (
    AllowMixedNumerics,
    Annotations,
    BeamOptions,
    CaptchaImages,
    DatasetName,
    DryRun,
    LimitCaptions,
    LimitImages,
    MaxFailures,
    NumShards,
    Rehash,
    SelectionSeed,
    ShardFormat,
    SplitRatios,
    StoreToWrite,
)

CaptionDatasetType = Literal["coco", "karpathy", "flickr8k", "flickr30k", "conceptual", "iapr", "csv", "jsonl"]
DatasetType = CaptionDatasetType | Literal["folder"]


class PrepareFeatures(ExtractorOptions):
    """Extract image features with a CNN and write them to the store.

    Images that are already in the feature table are skipped.
    """

    store: StoreToWrite
    dataset_type: Annotated[
        DatasetType,
        Option(
            "Format of the source dataset: coco, karpathy, flickr8k, flickr30k, conceptual, iapr, csv, jsonl,"
            " or folder (images without captions)."
        ),
    ]
    images: Annotated[
        tuple[str, ...],
        Option(
            "Directory or archive (.zip, uncompressed .tar) with images; local, s3:// or gs://. Repeatable. "
            "With `conceptual`, images are downloaded to the first directory.",
            "PATH",
        ),
    ]
    annotations: Annotations = ()
    dataset_name: DatasetName = None
    resize_method: Annotated[
        ResizeMethodOption,
        Option(
            "Resize method: pillow (bilinear, antialiased), draft (as pillow, with large JPEGs "
            "decoded at reduced size), or tf (tf.image.resize, not antialiased)."
        ),
    ] = "pillow"
    resize_mode: Annotated[
        ResizeMode,
        Option(
            "Resize mode: stretch ignores the aspect ratio; crop keeps it and crops the edges; pad keeps it and adds "
            "black borders."
        ),
    ] = "stretch"
    shortest_edge: Annotated[
        Count | None,
        Option(
            "With crop: length in pixels to which the shorter side is resized first. At least the longer side of "
            "the input size.",
            default="the smallest size that covers the crop",
        ),
    ] = None
    format: ShardFormat = "tfrecord"
    compression: Annotated[
        Compression,
        Option(
            "Compression of each feature value: none or zstd. zstd makes dense float features 12 to 30% "
            "smaller and random reads 2 to 10 times slower."
        ),
    ] = "none"
    batch_size: Annotated[
        Literal["auto"] | Count,
        Option(
            "Maximum number of images per forward pass, or auto (16). Halved automatically when memory runs out.",
            "N|auto",
        ),
    ] = "auto"
    num_shards: NumShards = None
    limit_images: LimitImages = None
    limit_captions: LimitCaptions = None
    seed: SelectionSeed = 0
    split_ratios: SplitRatios = "own"
    max_failures: MaxFailures = None
    dry_run: Annotated[
        bool, Option("Report cached and missing images, table size and estimated time. Write nothing.")
    ] = False
    assume_images: Annotated[
        Count | None,
        Option("With --dry-run: number of images for which to estimate size and time.", default="the number found"),
    ] = None
    retry_failed: Annotated[
        bool, Option("Process again the images and URLs that failed permanently in earlier runs.")
    ] = False
    rehash: Rehash = False
    max_image_pixels: Annotated[
        Count | None, Option("Maximum number of pixels per image. Larger images fail.", default="178956970")
    ] = None
    max_image_bytes: Annotated[
        Count | None, Option("Maximum size of an image file in bytes. Larger files fail.", default="268435456, 256 MiB")
    ] = None
    allow_mixed_numerics: AllowMixedNumerics = False
    allow_private_addresses: Annotated[
        bool, Option("Allow downloads from non-public IP addresses (dataset type `conceptual` only).")
    ] = False
    resource_hint: Annotated[
        tuple[str, ...],
        Option(
            "Beam resource hint NAME=VALUE for the extraction step, such as min_ram=16GB. Repeatable. Runners"
            " without resource hints ignore it.",
            "NAME=VALUE",
        ),
    ] = ()
    beam_options: BeamOptions = ()


class PrepareCaptions(Options):
    """Tokenize captions and write them to the store.

    The vocabulary is built from the train split, or reused with --vocab-from.
    """

    store: StoreToWrite
    dataset_type: Annotated[
        CaptionDatasetType,
        Option("Format of the source dataset: coco, karpathy, flickr8k, flickr30k, conceptual, iapr, csv or jsonl."),
    ]
    annotations: Annotations = ()
    dataset_name: DatasetName = None
    vocab_size: Annotated[
        int | None,
        Option(
            "Maximum vocabulary size, including the 4 special tokens. At least 5, or 0 for no limit.", default="5000"
        ),
    ] = None
    min_count: Annotated[
        int | None, Option("Minimum number of occurrences in the train split. Rarer words become <unk>.", default="1")
    ] = None
    vocab_from: Annotated[
        str | None,
        Option(
            "Caption table whose vocabulary is reused, by fingerprint or its beginning. Not valid with "
            "--vocab-size and --min-count.",
            "FINGERPRINT",
            default="build one",
        ),
    ] = None
    standardize: Annotated[
        Standardizer,
        Option(
            "Text standardization: keras (ASCII punctuation except the apostrophe splits words), alnum "
            "(everything except letters, digits and _ splits words), or punctuation (punctuation is removed)."
            " All lowercase."
        ),
    ] = "keras"
    max_length: Annotated[
        int,
        Option(
            "Maximum caption length in tokens, including <start> and <end>. Longer captions are truncated. At"
            " least 3, or 0 for no limit."
        ),
    ] = 0
    limit_images: LimitImages = None
    limit_captions: LimitCaptions = None
    seed: SelectionSeed = 0
    split_ratios: SplitRatios = "own"
    max_failures: MaxFailures = None
    dry_run: DryRun = False
    beam_options: BeamOptions = ()


class PrepareCaptcha(Options):
    """Resize CAPTCHA images and write their pixels and labels to the store."""

    store: StoreToWrite
    images: CaptchaImages
    labels: Annotated[
        str,
        Option(
            "Label file with one `ID LABEL` per line (`a0 thus`), or a directory or archive that contains "
            "spec_train_val.txt.",
            "FILE",
        ),
    ]
    dataset_name: Annotated[str | None, Option("Name of the dataset in the store.", "NAME", default="captcha")] = None
    split_sizes: Annotated[
        str | None,
        Option(
            "Number of images in train, val and test, by image number: TRAIN,VAL,TEST. The remaining images "
            "get the split `unused`.",
            "SIZES",
            default="5/7, 1/7 and 1/7 of the images",
        ),
    ] = None
    height: Annotated[Count, Option("Height of the stored image in pixels.")] = 80
    width: Annotated[Count, Option("Width of the stored image in pixels.")] = 160
    format: ShardFormat = "tfrecord"
    compression: Annotated[
        Compression,
        Option("Compression of each image's pixels: none or zstd (lossless). zstd saves about 60% of the space."),
    ] = "none"
    num_shards: NumShards = None
    max_failures: Annotated[
        str | None,
        Option(
            "Maximum number (100) or percentage (5%) of input records that may fail. Above it, the command "
            "commits the usable records and exits with code 3.",
            "N|P%",
            default="5%",
        ),
    ] = None
    dry_run: DryRun = False
    retry_failed: Annotated[bool, Option("Process again the images that failed permanently in earlier runs.")] = False
    rehash: Rehash = False
    allow_mixed_numerics: AllowMixedNumerics = False
    beam_options: BeamOptions = ()
