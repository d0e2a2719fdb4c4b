"""Declares the options that several commands share, with their help."""

from typing import Annotated, Literal

from schemas.choices import Format
from schemas.options.base import Argument, Count, Natural, Option

DecodingStrategy = Literal["greedy", "beam", "lexicon"]

NewDirectory = Annotated[str, Argument("Output directory. Must be new, empty, or contain the same dataset.", "DIR")]
GeneratorSeed = Annotated[Natural, Option("Seed of the random generator.")]
StoreToWrite = Annotated[
    str,
    Option("Store to write to: a local directory, or an s3:// or gs:// URI. Created if it does not exist.", "STORE"),
]
Annotations = Annotated[
    tuple[str, ...],
    Option(
        "Annotation file, or a directory or archive (.zip, .tar) that contains it; local, s3:// or gs://. Repeatable.",
        "PATH",
    ),
]
DatasetName = Annotated[str | None, Option("Name of the dataset in the store.", "NAME", default="the dataset type")]
ShardFormat = Annotated[Format, Option("File format of the shards: tfrecord or parquet.")]
NumShards = Annotated[
    Count | None,
    Option(
        "Number of shards: a power of two, at most 65536.",
        "N",
        default="the smallest number for which a shard has at most about 128 MiB",
    ),
]
LimitImages = Annotated[
    Count | None, Option("Maximum number of images. The image ID and --seed determine the selection.", default="all")
]
LimitCaptions = Annotated[
    Count | None,
    Option("Maximum number of captions of the selected images in total. Whole images are selected.", default="all"),
]
SelectionSeed = Annotated[
    Natural,
    Option("Seed of the selection by --limit-images and --limit-captions. Does not affect splits."),
]
SplitRatios = Annotated[
    str,
    Option(
        "Split assignment: `own` keeps the published splits and hashes all other image IDs 0.8/0.1/0.1; "
        "TRAIN,VAL,TEST fractions hash every image ID. An image already in the store keeps its split.",
        "RATIOS",
    ),
]
MaxFailures = Annotated[
    str | None,
    Option(
        "Maximum number (100) or percentage (5%) of input records that may fail. Above it, the command "
        "commits the usable records and exits with code 3.",
        "N|P%",
        default="5%; conceptual: 100%",
    ),
]
Rehash = Annotated[bool, Option("Hash every image again instead of using the hash cache.")]
AllowMixedNumerics = Annotated[
    bool,
    Option(
        "Allow new rows that were computed on another CPU type, or with another version of TensorFlow, "
        "Pillow or libjpeg, than the rows in the table. Such rows are not bit-identical.",
        default="stop with an error",
    ),
]
BeamOptions = Annotated[
    tuple[str, ...],
    Argument("Apache Beam pipeline options, after `--`, such as `-- --runner=FlinkRunner`.", "BEAM_OPTIONS"),
]
DryRun = Annotated[bool, Option("Report what the command would do. Write nothing.")]
CaptchaImages = Annotated[
    tuple[str, ...],
    Option("Directory or archive (.zip, .tar) with a0.png, a1.png, ...; local, s3:// or gs://. Repeatable.", "PATH"),
]
StoreArgument = Annotated[str, Argument("Store: a local directory, or an s3:// or gs:// URI.", "STORE")]
CaptionTable = Annotated[
    str | None,
    Option("Caption table, by fingerprint or the beginning of one.", "FINGERPRINT", default="the only table that fits"),
]
StoreToRead = Annotated[str, Option("Store to read: a local directory, or an s3:// or gs:// URI.", "STORE")]
RunDir = Annotated[
    str,
    Option("Run directory. Created if it does not exist. An unfinished run resumes from its last checkpoint.", "DIR"),
]
Datasets = Annotated[
    tuple[str, ...],
    Option("Dataset in the store to train on. Repeatable.", "NAME", default="the only dataset that fits"),
]
StepsPerEpoch = Annotated[
    Count | None,
    Option(
        "Number of steps per epoch. If set, images are sampled with replacement.",
        default="one pass over the train split",
    ),
]
SaveSteps = Annotated[
    Count | None,
    Option(
        "Number of steps between checkpoints, in addition to one after each epoch.", default="after each epoch only"
    ),
]
WarmStartFrom = Annotated[
    str | None,
    Option(
        "Run that the initial weights are copied from. The model and its sizes must be the same; the vocabulary "
        "may differ.",
        "RUN",
        default="random initialization",
    ),
]
RunArgument = Annotated[
    str, Argument("Training run: a run directory, or STORE/models/NAME for the champion of a registered model.", "RUN")
]
ImageArguments = Annotated[
    tuple[str, ...],
    Argument("Image, directory, .zip or .tar file, or a URI (s3://, gs://, http://, https://). Repeatable.", "PATH"),
]
AllowPrivateAddresses = Annotated[
    bool, Option("Allow http:// and https:// URLs that resolve to non-public IP addresses.")
]
Strategy = Annotated[
    DecodingStrategy,
    Option(
        "Decoding strategy: greedy; beam (CTC prefix beam search, width 10); or lexicon (the most "
        "probable label of the train split)."
    ),
]
ModelName = Annotated[str | None, Option("Model name in the registry.", "NAME", default="the only model")]
