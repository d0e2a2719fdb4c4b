"""Declares the options of `capt prepare`."""

from typing import Annotated, Literal

from schemas import defaults
from schemas.choices import (
    Backend,
    Compression,
    DeviceChoice,
    Format,
    ResizeMethodOption,
    ResizeMode,
    Standardizer,
    TextResizeMode,
)
from schemas.options.base import Argument, Count, Natural, Option, Options, option
from schemas.options.extractor import ExtractorOptions
from schemas.options.shared import CAPTION_TABLE, DRY_RUN, NUM_SHARDS

SampledCaptionType = Literal[
    "coco", "karpathy", "flickr8k", "flickr30k", "iapr", "csv", "jsonl", "webdataset", "huggingface", "imagefolder"
]
CaptionDatasetType = Literal[SampledCaptionType, "conceptual", "urls"]
DatasetType = Literal[CaptionDatasetType, "folder"]
# The images of conceptual and urls are URLs, which capt downloads only while it prepares them.
SampledDatasetType = Literal[SampledCaptionType, "folder"]

StoreToWrite = Annotated[
    str,
    Option("Store to write to: a local directory, or an s3:// or gs:// URI. Created if it does not exist.", "STORE"),
]
ANNOTATIONS = option(
    (),
    "Annotation file, or a directory or archive (.zip, .tar) that contains it; local, s3:// or gs://. Repeatable. With "
    "`webdataset`, `huggingface` and `imagefolder`, the paths of --images. With `urls`, a list of URLs (.parquet, "
    ".csv, .tsv or .jsonl), its directory, or a pattern such as 'part-{000..127}.parquet'.",
    "PATH",
)
WHOLE_DESCRIPTIONS = option(
    False, "Use the whole description of an image as one caption, instead of one caption per clause. iapr only."
)


class ColumnOptions(Options):
    """Columns of a table with images and captions, and fields of the samples of a WebDataset."""

    image_column: str | None = option(
        None,
        "Column with the names of the images (csv, jsonl, imagefolder), their URLs (urls) or bytes (huggingface), or "
        "field of the images (webdataset), such as png. [default: image, file_name, path or another usual name; "
        "urls: url or another usual name; huggingface: the column with bytes; webdataset: the only image of a sample]",
        "NAME",
    )
    caption_column: tuple[str, ...] = option(
        (),
        "Column with captions: text, or a list of texts. Repeatable. Only csv, jsonl, urls, huggingface and "
        "imagefolder. "
        "[default: caption and captions, caption_0 to caption_N, text, or another usual name]",
        "NAME",
    )
    id_column: str | None = option(
        None,
        "Column with the IDs of the captions (csv, jsonl, urls, imagefolder) or of the images (huggingface). [default: "
        "id or another usual name, if there is one; otherwise captions are numbered within their image, or with urls "
        "named by the hash of their text, and images are named by their path or row]",
        "NAME",
    )
    split_column: str | None = option(
        None,
        "Column with the splits: train, val, test or unused. Only csv, jsonl, urls, huggingface and imagefolder. "
        "[default: split or subset, if there is one]",
        "NAME",
    )
    group_column: str | None = option(
        None,
        "Column with a group of each image, such as its photographer or video. Images of one group that have no "
        "published split are assigned to the same split. Only csv, jsonl, urls, huggingface and imagefolder. [default: "
        "each image is a group]",
        "NAME",
    )

    caption_field: tuple[str, ...] = option(
        (),
        "Field of the captions of a sample, such as txt, or path of keys in its JSON object, such as meta.captions. "
        "Repeatable. webdataset only. [default: txt, else caption, else the captions in the JSON object]",
        "FIELD",
    )


DATASET_NAME = option(None, "Name of the dataset in the store. [default: the dataset type]", "NAME")
SHARD_FORMAT = option("tfrecord", "File format of the shards: tfrecord or parquet.")
LIMIT_IMAGES = option(
    None,
    "Maximum number of images, in total (1000) or by split (train=10000,val=5000; a split that is not named has no "
    "limit). The image ID and --seed determine the selection. [default: all]",
    "N|SPLIT=N,...",
)
LIMIT_CAPTIONS = option(
    None, "Maximum total number of captions of the selected images. All their captions are used. [default: all]"
)
SAMPLE_CAPTIONS = option(
    None,
    "Number of captions to sample from those of all selected images. Only the images of these captions are used. Not "
    "valid with --limit-captions. [default: all captions]",
)
SELECTION_SEED = option(
    0, "Seed of the selection by --limit-images, --limit-captions and --sample-captions. Does not affect splits."
)
SPLIT_RATIOS = option(
    "own",
    "Split assignment. `own`: published splits; other images are assigned by a hash of the image ID "
    f"({'/'.join(map(str, defaults.SPLIT_RATIOS))}). TRAIN,VAL,TEST, such as 0.8,0.1,0.1, or TRAIN,VAL, such as "
    "0.8,0.2: all images are assigned by the hash. An image already in the store keeps its split.",
    "RATIOS",
)
MAX_FAILURES_TEXT = (
    "Maximum number (100) or percentage (5%) of input records that may fail. Above it, the command commits the usable "
    "records and exits with code 3."
)
MAX_FAILURES = option(
    None,
    f"{MAX_FAILURES_TEXT} [default: {defaults.MAX_FAILURES}; conceptual, urls: {defaults.MAX_DOWNLOAD_FAILURES}]",
    "N|P%",
)
REHASH = option(False, "Hash every image again instead of using the hash cache.")
ALLOW_MIXED_NUMERICS = option(
    False,
    "Allow new rows that were computed on another CPU type or GPU, or with another backend, or other versions of "
    "libraries that change bits, than the rows in the table. Such rows are not bit-identical. [default: stop with an "
    "error]",
)
HASH_COLUMN = option(
    None,
    "Column with the expected MD5, SHA-1 or SHA-256 of the image files, in hexadecimal digits. A file with another "
    "hash fails. urls only. [default: any file is accepted]",
    "NAME",
)
MAX_IMAGE_PIXELS = option(defaults.MAX_IMAGE_PIXELS, "Maximum number of pixels per image. Larger images fail.")
MAX_IMAGE_BYTES = option(defaults.MAX_IMAGE_BYTES, "Maximum size of an image file in bytes. Larger files fail.")
ALLOW_PRIVATE_ADDRESSES = option(
    False, "Allow downloads from non-public IP addresses (dataset types `conceptual` and `urls` only)."
)
IGNORE_ROBOTS_TAG = option(
    False,
    "Download images also if the header X-Robots-Tag has noai, noimageai, noindex or noimageindex (dataset types "
    "`conceptual` and `urls` only). [default: such images fail]",
)
FILTERS = option(
    None,
    "Characters at which `keras` splits words, as the argument `filters` of Keras' Tokenizer. White space, < and > "
    "always split. Only with --standardize keras. [default: ASCII punctuation except the apostrophe]",
    "CHARS",
)
BeamOptions = Annotated[
    tuple[str, ...],
    Argument("Apache Beam pipeline options, after `--`, such as `-- --runner=FlinkRunner`.", "BEAM_OPTIONS"),
]


class PrepareFeatures(ExtractorOptions, ColumnOptions):
    """Extract image features with a CNN, or import them, and write them to the store.

    Images that are already in the feature table are not extracted again. The dataset then consists of the images of
    this run. Images of earlier runs that this run does not list leave the dataset; their features stay until `capt
    store compact`.
    """

    store: StoreToWrite
    dataset_type: Annotated[
        DatasetType,
        Option(
            "Format of the source dataset: coco, karpathy, flickr8k, flickr30k, conceptual, iapr, csv, jsonl, "
            "webdataset, huggingface (Parquet), imagefolder, urls (lists of URLs), or folder (images without captions)."
        ),
    ]
    images: Annotated[
        tuple[str, ...],
        Option(
            "Directory or archive (.zip, uncompressed .tar) with images; local, s3:// or gs://. Repeatable. With "
            "`conceptual` and `urls`, images are downloaded to the first directory. With `webdataset` "
            "and `huggingface`: shards or their directory, which contain the captions, too; webdataset also as "
            "'shards/{00000..00099}.tar'.",
            "PATH",
        ),
    ]
    annotations: tuple[str, ...] = ANNOTATIONS
    hash_column: str | None = HASH_COLUMN
    dataset_name: str | None = DATASET_NAME
    from_arrays: tuple[str, ...] = option(
        (),
        "Import features instead of extracting them: a directory or archive (.zip, .npz, uncompressed .tar) with one "
        ".npy file per image, named after the image's ID or file (repeatable); or, with --array-names, one .npy or "
        ".npz file with a row per image. Pickles are refused. [default: extract features]",
        "PATH",
    )
    array_names: str | None = option(
        None,
        "File with the names of the rows of --from-arrays, in the same order: one per line, a JSON list, or a .npy "
        "array of strings.",
        "FILE",
    )
    resize_method: ResizeMethodOption = option(
        "pillow",
        "Resize method: pillow (bilinear, antialiased), draft (as pillow, with large JPEGs decoded at reduced "
        "size: faster, other pixels), or tf (tf.image.resize, not antialiased).",
    )
    resize_mode: ResizeMode | None = option(
        None,
        "Resize mode: stretch ignores the aspect ratio; crop keeps it and crops the edges; pad keeps it and adds "
        "black borders; pad-border adds borders in the median color of the image's own border. [default: stretch; "
        "keras_hub: that of the preset's image converter]",
    )
    shortest_edge: Count | None = option(
        None,
        "With crop: length in pixels to which the shorter side is resized first. At least the longer side of the "
        "input size. [default: the smallest size that covers the crop]",
    )
    format: Format = SHARD_FORMAT
    compression: Compression = option(
        "none",
        "Compression of each feature value: none or zstd. zstd makes dense float features 12 to 30% smaller and "
        "random reads 2 to 10 times slower.",
    )
    device: DeviceChoice = option(
        "auto",
        "Device that computes the features: cpu, gpu, or auto (the first GPU or TPU of the backend, otherwise the "
        "CPU). With TensorFlow on a remote runner, auto is cpu.",
    )
    backend: Backend | None = option(
        None,
        "Backend of Keras that computes the features: tensorflow, jax or torch. [default: the value of KERAS_BACKEND, "
        "otherwise the first of the three that is installed]",
    )
    batch_size: Literal["auto"] | Count = option(
        "auto",
        f"Maximum number of images per forward pass, or auto ({defaults.BATCH_SIZE} on a CPU, "
        f"{defaults.ACCELERATOR_BATCH_SIZE} on a GPU or TPU, or if remote workers choose the device). Halved "
        "automatically when memory runs out.",
        "N|auto",
    )
    num_shards: Count | None = NUM_SHARDS
    limit_images: Count | str | None = LIMIT_IMAGES
    limit_captions: Count | None = LIMIT_CAPTIONS
    sample_captions: Count | None = SAMPLE_CAPTIONS
    whole_descriptions: bool = WHOLE_DESCRIPTIONS
    seed: Natural = SELECTION_SEED
    split_ratios: str = SPLIT_RATIOS
    max_failures: str | None = MAX_FAILURES
    dry_run: bool = option(
        False, "Report cached and missing images, table size and estimated time. The store is not changed."
    )
    assume_images: Count | None = option(
        None, "With --dry-run: number of images for which to estimate size and time. [default: the number found]"
    )
    retry_failed: bool = option(False, "Process again the images and URLs that failed permanently in earlier runs.")
    rehash: bool = REHASH
    max_image_pixels: Count = MAX_IMAGE_PIXELS
    max_image_bytes: Count = MAX_IMAGE_BYTES
    allow_mixed_numerics: bool = ALLOW_MIXED_NUMERICS
    allow_private_addresses: bool = ALLOW_PRIVATE_ADDRESSES
    ignore_robots_tag: bool = IGNORE_ROBOTS_TAG
    resource_hint: tuple[str, ...] = option(
        (),
        "Beam resource hint NAME=VALUE for the extraction step, such as min_ram=16GB. Repeatable. Runners without "
        "resource hints ignore it.",
        "NAME=VALUE",
    )
    beam_options: BeamOptions = ()


class PrepareCaptions(ColumnOptions):
    """Tokenize captions and write them to the store.

    The vocabulary is built from the train split, or reused with --vocab-from. The caption table then consists of the
    captions of this run. If the train captions change and no vocabulary is reused, a new table is written.
    """

    store: StoreToWrite
    dataset_type: Annotated[
        CaptionDatasetType,
        Option(
            "Format of the source dataset: coco, karpathy, flickr8k, flickr30k, conceptual, iapr, csv, jsonl, "
            "webdataset, huggingface (Parquet), imagefolder or urls (lists of URLs)."
        ),
    ]
    annotations: tuple[str, ...] = ANNOTATIONS
    dataset_name: str | None = DATASET_NAME
    vocab_size: int | None = option(
        None,
        "Maximum vocabulary size, including the 4 special tokens. At least 5, or 0 for no limit. "
        f"[default: {defaults.VOCAB_SIZE}]",
    )
    min_count: int | None = option(
        None, "Minimum number of occurrences in the train split. Rarer words become <unk>. [default: 1]"
    )
    vocab_from: str | None = option(
        None,
        "Caption table whose vocabulary is reused, by fingerprint or its beginning. Not valid with --vocab-size "
        "and --min-count. [default: build one]",
        "FINGERPRINT",
    )
    standardize: Standardizer = option(
        "keras",
        "Text standardization: keras (ASCII punctuation except the apostrophe splits words), alnum (everything "
        "except letters, digits and _ splits words), or punctuation (punctuation is removed). All lowercase.",
    )
    filters: str | None = FILTERS
    max_length: int = option(
        0,
        "Maximum caption length in tokens, including <start> and <end>. Longer captions are truncated. At least 3, "
        "or 0 for no limit.",
    )
    limit_images: Count | str | None = LIMIT_IMAGES
    limit_captions: Count | None = LIMIT_CAPTIONS
    sample_captions: Count | None = SAMPLE_CAPTIONS
    whole_descriptions: bool = WHOLE_DESCRIPTIONS
    seed: Natural = SELECTION_SEED
    split_ratios: str = SPLIT_RATIOS
    max_failures: str | None = MAX_FAILURES
    dry_run: bool = DRY_RUN
    beam_options: BeamOptions = ()


class Tokenize(Options):
    """Show the words and token IDs of captions, and the words of token IDs.

    The rules and the vocabulary are those of a caption table (--store) or of a captioner (--run). Otherwise the options
    below set the rules, and the vocabulary is built from the given captions.
    """

    captions: Annotated[tuple[str, ...], Argument("Caption. Repeatable.", "CAPTION")] = ()
    ids: tuple[str, ...] = option(
        (),
        "Token IDs of a caption to convert to words, such as 2,4,10,3. Requires --store or --run. Repeatable.",
        "IDS",
    )
    store: str | None = option(
        None, "Store with the caption table: a local directory, or an s3:// or gs:// URI.", "STORE"
    )
    caption_table: str | None = CAPTION_TABLE
    run: str | None = option(
        None, "Captioner whose rules and vocabulary are used: a run directory, or STORE/models/NAME.", "RUN"
    )
    standardize: Standardizer | None = option(
        None, "Text standardization: keras, alnum or punctuation, as in `capt prepare captions`. [default: keras]"
    )
    filters: str | None = FILTERS
    vocab_size: int | None = option(
        None, "Maximum vocabulary size, including the 4 special tokens. At least 5, or 0 for no limit. [default: 0]"
    )
    min_count: int | None = option(
        None, "Minimum number of occurrences in the given captions. Rarer words become <unk>. [default: 1]"
    )
    max_length: int | None = option(
        None,
        "Maximum caption length in tokens, including <start> and <end>. Longer captions are truncated. At least 3, "
        "or 0 for no limit. [default: 0]",
    )


class PrepareCaptcha(Options):
    """Resize images with text, such as CAPTCHAs, and write their pixels and labels to the store.

    The dataset then consists of the images of this run. Images of earlier runs that this run does not list leave
    the dataset; their pixels stay until `capt store compact`.
    """

    store: StoreToWrite
    images: Annotated[
        tuple[str, ...],
        Option(
            "Directory or archive (.zip, uncompressed .tar) with images; local, s3:// or gs://. Repeatable.", "PATH"
        ),
    ]
    labels: str | None = option(
        None,
        "Labels of the images. `names`: the file names. FILE: a table (.csv, .tsv, .jsonl or .parquet) with an image "
        "and a label per row; a text file with lines `ID LABEL` (`a0 thus`); or a text file with one label per line, "
        "in the order of the image names. A directory or archive stands for the label file in it. [default: names]",
        "FILE|names",
    )
    label_pattern: str | None = option(
        None,
        "Regular expression with a group `label` that matches a whole file name without its suffix, such as "
        r"`(?P<label>.+)-\d+` for abc-0.png. Only with --labels names. [default: the name without its suffix]",
        "REGEX",
    )
    image_column: str | None = option(
        None, "Column of a table with the image names. [default: image, filename, path or another usual name]", "NAME"
    )
    label_column: str | None = option(
        None, "Column of a table with the labels. [default: label, text, word or another usual name]", "NAME"
    )
    split_column: str | None = option(
        None,
        "Column of a table with the splits: train, val or test. [default: split or subset, if there is one]",
        "NAME",
    )
    charset: str | None = option(
        None, "Characters that labels may have. An image whose label has another one fails. [default: all]", "CHARS"
    )
    fold_case: bool = option(False, "Ignore case: every character is replaced by its case folding, usually lowercase.")
    dataset_name: str | None = option(None, "Name of the dataset in the store. [default: captcha]", "NAME")
    split_sizes: str | None = option(
        None,
        "Number of images in train, val and test, by position: TRAIN,VAL,TEST. The order is that of the image numbers "
        "or names, or of the rows of a table. The remaining images get the split `unused`. Not valid with "
        "--split-ratios. [default for lines `ID LABEL`: 5/7, 1/7 and 1/7 of the images]",
        "SIZES",
    )
    split_ratios: str | None = option(
        None,
        "Split assignment by a hash of the image ID: TRAIN,VAL,TEST, such as 0.8,0.1,0.1, or TRAIN,VAL, such as "
        "0.8,0.2. An image already in the store keeps its split. [default: the splits of the table, otherwise "
        f"{','.join(map(str, defaults.SPLIT_RATIOS))}; for lines `ID LABEL` see --split-sizes]",
        "RATIOS",
    )
    height: Count | None = option(
        None,
        "Height of the stored images in pixels. [default: chosen from the sizes and strokes of a sample of the images "
        "and from the labels, with the --width if only that is given; "
        f"{defaults.PUBLISHED_CAPTCHA_SIZE[0]} for lines `ID LABEL`; an existing dataset keeps its size]",
    )
    width: Count | None = option(
        None, f"Width, as --height. [default: as --height; {defaults.PUBLISHED_CAPTCHA_SIZE[1]} for lines `ID LABEL`]"
    )
    resize_mode: TextResizeMode | None = option(
        None,
        "Resize mode: pad-border keeps the aspect ratio and adds borders in the median color of the image's own "
        "border; stretch ignores the aspect ratio. [default: pad-border; stretch for lines `ID LABEL`]",
    )
    format: Format = SHARD_FORMAT
    compression: Compression = option(
        "none", "Compression of each image's pixels: none or zstd (lossless). zstd saves about 60% of the space."
    )
    num_shards: Count | None = NUM_SHARDS
    max_failures: str | None = option(None, f"{MAX_FAILURES_TEXT} [default: {defaults.MAX_FAILURES}]", "N|P%")
    dry_run: bool = DRY_RUN
    retry_failed: bool = option(False, "Process again the images that failed permanently in earlier runs.")
    rehash: bool = REHASH
    allow_mixed_numerics: bool = ALLOW_MIXED_NUMERICS
    beam_options: BeamOptions = ()
