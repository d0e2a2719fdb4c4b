"""Declares the options of `capt demo`, `capt experiment`, `capt reproduce`, `capt retrain` and `capt models`."""

from typing import Annotated, Literal

from schemas.options.base import Argument, Count, Natural, Options, Seed, option
from schemas.options.extractor import Preprocess
from schemas.options.prepare import ANNOTATIONS, SampledCaptionType
from schemas.options.shared import DRY_RUN, StoreArgument

MODEL_NAME = option(None, "Model name in the registry. [default: the only model]", "NAME")


DEMO_LIMIT = "train=1500,val=150,test=150,unused=0"


class Demo(Options):
    """Run the whole workflow on synthetic data and write an HTML report. Takes about three minutes on two CPU cores.

    Without --dataset-type, the demo generates scenes and CAPTCHAs, and learns to caption and to read them. It needs no
    download. With --dataset-type, it learns to caption your images.
    """

    output: str = option("demo", "Output directory. An interrupted demo resumes there.", "DIR")
    dataset_type: SampledCaptionType | None = option(
        None,
        "Format of your dataset: coco, karpathy, flickr8k, flickr30k, iapr, csv, jsonl, webdataset, "
        "huggingface or imagefolder. [default: synthetic scenes and CAPTCHAs]",
    )
    images: tuple[str, ...] = option(
        (),
        "Directory or archive (.zip, uncompressed .tar) with images; local, s3:// or gs://. Repeatable. Required with "
        "--dataset-type.",
        "PATH",
    )
    annotations: tuple[str, ...] = ANNOTATIONS
    extractor: str | None = option(
        None,
        "Feature extractor, as of `capt prepare features`. Only with --dataset-type. [default: inception_v3]",
        "EXTRACTOR",
    )
    weights: str | None = option(
        None,
        "Extractor weights, as of `capt prepare features`. Only with --dataset-type. [default: imagenet; random "
        "weights, and a notice, if it cannot be downloaded]",
        "WEIGHTS",
    )
    layer: str | None = option(
        None,
        "Name of the layer whose output is stored; it must be spatial. Only with --dataset-type. [default: as of `capt "
        "prepare features`]",
        "NAME",
    )
    preprocess: Preprocess | None = option(
        None,
        "Input preprocessing of a custom: extractor, as of `capt prepare features`: none, unit, tf, caffe or torch. "
        "Only with --dataset-type.",
    )
    limit_images: Count | str | None = option(
        None,
        "Maximum number of images, in total (1000) or by split (train=10000,val=5000). Only with --dataset-type. "
        f"[default: {DEMO_LIMIT}]",
        "N|SPLIT=N,...",
    )


class ExperimentRun(Options):
    """Train and evaluate every combination of models, tables and seeds in an experiment file.

    Finished trials are skipped; interrupted trials resume.
    """

    file: Annotated[str, Argument("Experiment file (YAML). See examples/experiment.yaml.", "FILE")]
    dry_run: bool = DRY_RUN


class ExperimentReport(Options):
    """Write one HTML page about the trials of an experiment.

    The page has scores and confidence intervals, learning curves, costs, captions side by side, and the differences
    between trials.
    """

    directory: Annotated[str, Argument("Experiment directory: `output_dir` of the experiment file.", "DIR")]
    output: str | None = option(None, "HTML file to write. [default: DIR/report.html]", "FILE")
    num_images: Natural = option(12, "Maximum number of images shown side by side.")


class Reproduce(Options):
    """Run a recipe: prepare its data, train with its pinned settings, and compare the scores with their bands.

    Exit code 1 if a score is outside its band. An interrupted run resumes. Recipes with equal data share the work of a
    work directory.
    """

    recipe: Annotated[
        str | None,
        Argument("Recipe: a name of --list, or a recipe file (.yaml). Required without --list.", "RECIPE"),
    ] = None
    work_dir: str | None = option(
        None,
        "Directory of data, store, runs, results and pages. Must be new, empty, or a work directory. Required without "
        "--list and --dry-run.",
        "DIR",
    )
    images: tuple[str, ...] = option(
        (),
        "Directory or archive (.zip, uncompressed .tar) with the images of the recipe. Repeatable. [default: download "
        "or generate the data]",
        "PATH",
    )
    annotations: tuple[str, ...] = option(
        (),
        "Annotation file, or a directory or archive (.zip, .tar) that contains it. Repeatable. Required with --images.",
        "PATH",
    )
    extractor: str | None = option(
        None,
        "File of the recipe's extractor: custom:FILE.keras. Its SHA-256 is checked. Required by recipes with a custom "
        "extractor.",
        "EXTRACTOR",
    )
    split: Literal["val", "test"] = option(
        "val",
        "Split to score: val or test. Bands are those of val; the scores of test are reported without a verdict.",
    )
    seed: Seed | None = option(
        None,
        "Seed of the training, in place of the recipe's seeds. Other seeds get no verdict. [default: the recipe's]",
    )
    list: bool = option(
        False, "List the recipes with data, time, disk space, expected scores, and how the scores were measured."
    )
    dry_run: bool = option(False, "Print the complete settings as a recipe file. Nothing is written.")


class Retrain(Options):
    """Run one retraining cycle: prepare new data, check it, train a challenger, promote it if it beats the champion.

    Safe to run from cron.
    """

    file: Annotated[str, Argument("Retraining file (YAML). See examples/retrain.yaml.", "FILE")]
    dry_run: bool = DRY_RUN


class ModelsLs(Options):
    """List the models of a store and their champions."""

    store: StoreArgument


class ModelsShow(Options):
    """Show every decision about a model, with the reasons."""

    store: StoreArgument
    model_name: str | None = MODEL_NAME


class ModelsPromote(Options):
    """Make a run the champion, regardless of earlier decisions."""

    store: StoreArgument
    run: Annotated[
        str,
        Argument("Run of the model, by name or the beginning of its name. `capt models show` lists the runs.", "RUN"),
    ]
    model_name: str | None = MODEL_NAME


class ModelsRollback(Options):
    """Make the previous champion the champion again. The last five champions are kept."""

    store: StoreArgument
    model_name: str | None = MODEL_NAME
