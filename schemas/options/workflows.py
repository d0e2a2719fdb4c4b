"""Declares the options of `capt demo`, `capt experiment`, `capt retrain` and `capt models`."""

from typing import Annotated

from schemas.options.base import Argument, Natural, Options, option
from schemas.options.shared import DRY_RUN, StoreArgument

MODEL_NAME = option(None, "Model name in the registry. [default: the only model]", "NAME")


class Demo(Options):
    """Run the whole workflow on synthetic data and write an HTML report. Takes about one minute on two CPU cores."""

    output: str = option("demo", "Output directory. An interrupted demo resumes there.", "DIR")


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
