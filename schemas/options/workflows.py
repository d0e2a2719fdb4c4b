"""Declares the options of `capt demo`, `capt experiment` and `capt retrain`."""

from typing import Annotated

from schemas.options.base import Argument, Natural, Option, Options
from schemas.options.shared import DryRun


class Demo(Options):
    """Run the whole workflow on synthetic data and write an HTML report. Takes about one minute on two CPU cores."""

    output: Annotated[str, Option("Output directory. An interrupted demo resumes there.", "DIR")] = "demo"


class ExperimentRun(Options):
    """Train and evaluate every combination of models, tables and seeds in an experiment file.

    Finished trials are skipped; interrupted trials resume.
    """

    file: Annotated[str, Argument("Experiment file (YAML). See examples/experiment.yaml.", "FILE")]
    dry_run: DryRun = False


class ExperimentReport(Options):
    """Write one HTML page about the trials of an experiment.

    The page has scores and confidence intervals, learning curves, costs, captions side by side, and the differences
    between trials.
    """

    directory: Annotated[str, Argument("Experiment directory: `output_dir` of the experiment file.", "DIR")]
    output: Annotated[str | None, Option("HTML file to write.", "FILE", default="DIR/report.html")] = None
    num_images: Annotated[Natural, Option("Maximum number of images shown side by side.")] = 12


class Retrain(Options):
    """Run one retraining cycle: prepare new data, check it, train a challenger, promote it if it beats the champion.

    Safe to run from cron.
    """

    file: Annotated[str, Argument("Retraining file (YAML). See examples/retrain.yaml.", "FILE")]
    dry_run: DryRun = False
