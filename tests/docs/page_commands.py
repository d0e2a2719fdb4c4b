"""The commands of the pages that the tests do not run, those that they run with smaller numbers, and why."""

import re
from dataclasses import dataclass

from tests.docs.pages import Code

SMALL_EXTRACTOR = "--extractor mobilenet_v3_small --weights random:7 --height 64 --width 64"


@dataclass(frozen=True)
class Excluded:
    """Code that does not run. capt's commands and those of the benchmarks are still parsed.

    Attributes:
        pattern: Regular expression that the beginning of the command matches, or any part after `.*`.
        page: Regular expression that the page matches.
    """

    pattern: str
    reason: str
    page: str = ""

    def matches(self, code: Code) -> bool:
        return bool(re.match(self.pattern, code.text) and re.search(self.page, code.page))


EXCLUDED = [
    Excluded("pip install ", "downloads from a package index"),
    Excluded("make ", "builds an environment, or runs the tests themselves"),
    Excluded("capt fetch ", "downloads from the publishers"),
    Excluded("capt prepare .*data/laion", "needs the images of `capt fetch urls`"),
    Excluded(r"capt .*s3://", "needs a bucket"),
    Excluded(r"docker |cp examples/dataflow/|capt .*gs://", "needs Docker and Dataflow"),
    Excluded(r"capt .*FlinkRunner|capt .*SparkRunner|python -m apache_beam", "needs a cluster"),
    Excluded(r"go install |capt .*PrismRunner", "downloads Prism"),
    Excluded("capt .*(vgg|inception_resnet)", "builds an extractor with up to 0.5 GB of weights"),
    Excluded("capt experiment run benchmarks/", "runs for minutes to hours; tests/benchmarks run them at a small size"),
    Excluded("capt reproduce (flickr8k|coco|captcha)(?!.*--dry-run)", "runs for minutes to hours"),
    Excluded(
        "capt train captcha .*--learning-curve",
        "needs 200 labelled images and trains four times; tests/trainer/tasks/test_learning_curve.py runs it",
    ),
    Excluded("capt serve |curl .*127.0.0.1", "serves until it is interrupted; tests/workflows/serving run it"),
    Excluded("tensorboard ", "serves until it is interrupted"),
    Excluded("python examples/training/", "trains for minutes; tests/trainer/data/test_training_examples.py runs both"),
    Excluded(
        "(from|import) (torch|grain)", "needs PyTorch or Grain; tests/trainer/data/test_caption_source.py runs both"
    ),
    Excluded("import (datasets|webdataset)", "needs these libraries; tests/pipelines/libraries runs both"),
    Excluded("capt models (promote|rollback) ", "needs a second champion, so new data; tests/workflows run both"),
    Excluded(
        "capt (prepare|train) captcha .*(--images|--dataset) open",
        "needs labels that a person has corrected; tests/trainer/inference prepare them",
    ),
    Excluded("(KERAS_BACKEND=jax )?python benchmarks/", "runs for minutes to hours; tests/benchmarks run their parts"),
]


@dataclass(frozen=True)
class Changed:
    """A replacement in code before it runs.

    Attributes:
        pattern: Regular expression of what is replaced; all its occurrences are.
        page: Regular expression that the page matches.
    """

    pattern: str
    replacement: str
    reason: str
    page: str = ""

    def apply(self, code: Code) -> str:
        return re.sub(self.pattern, self.replacement, code.text) if re.search(self.page, code.page) else code.text


CHANGED = [
    Changed(
        "^(capt prepare features (?!.*--(?:extractor|from-arrays)).*?)( -- .*)?$",
        rf"\1 {SMALL_EXTRACTOR}\2",
        "the ImageNet weights are not there, and a small extractor is faster",
    ),
    Changed(
        "^(capt prepare features .*--extractor mobilenet_v3_small(?!.*--weights).*)$",
        r"\1 --weights random:7",
        "the ImageNet weights are not there",
    ),
    Changed("^(capt train (?!.*--epochs [1-9] ).*)$", r"\1 --epochs 1", "one epoch is faster"),
    Changed("(--num-images) (14000|2000)", r"\1 70", "few images are enough"),
    Changed("--split-sizes 2000,0,0", "--split-sizes 70,0,0", "few images are enough"),
    Changed("--rate 0.01", "--rate 0.7", "the tests have few images"),
    Changed("num_workers=4", "num_workers=2", "the tests have two cores"),
    Changed("12000:14000|120000:140000", "60:70", "few images are enough"),
    Changed(r"\ba12000\b|\ba120000\b", "a65", "few images are enough"),
    Changed(r" https://example\.\w+/\w+\.\w+", "", "the tests use no network"),
    Changed("extractor_weights: imagenet", "extractor_weights: random:7", "the ImageNet weights are not there"),
]


def change(code: Code) -> str:
    """Returns the code as the tests run it."""
    text = code.text
    for change in CHANGED:
        text = change.apply(Code(code.page, code.language, text))
    return text
