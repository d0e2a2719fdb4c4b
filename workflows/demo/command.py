"""Runs the demo and writes `report.html`: `capt demo`."""

import os
import shlex
import shutil
import sys
import time
from typing import Any

from features.io.atomic_files import write
from features.io.locations import local_path
from schemas.options.workflows import Demo
from workflows.demo.captchas import demonstrate_captchas
from workflows.demo.own_images import check_own_images, demonstrate_own_images
from workflows.demo.page import build_demo_page
from workflows.demo.scenes import demonstrate_scenes
from workflows.demo.steps import Steps
from workflows.example_pages import format_duration


def demo(options: Demo) -> dict[str, Any]:
    """Prepares data, trains, predicts on unseen images, and writes `report.html`.

    Without a dataset type, it generates scenes and CAPTCHAs and learns both tasks. Otherwise it learns to caption the
    user's images. An interrupted demo resumes in its output directory.

    Returns:
        `captioning` and, for synthetic data, `captcha`: the numbers of `images` and `unseen` images, metrics,
        `run_dir` and `examples`. For scenes, `correct` contains for `captions`, `colors` and `shapes` the `fraction` of
        correct captions and `chance` (the fraction for captions of other scenes), and `attention` the fraction of the
        words for an object at which the attention is greatest on the object. Also `notices`, `seconds`, `cpu_seconds`
        (of this process), and the paths `report` and `store`.

    Raises:
        UsageError: An option requires a dataset type, or the dataset type requires an option.
    """
    check_own_images(options)
    started, used = time.monotonic(), _cpu_seconds()
    root = local_path(options.output, "--output").absolute()
    store, report, steps = root / "store", root / "report.html", Steps()
    notices: tuple[str, ...] = ()
    if options.dataset_type is None:
        parts = {
            "captioning": demonstrate_scenes(root, store, steps),
            "captcha": demonstrate_captchas(root, store, steps),
        }
    else:
        part, notices = demonstrate_own_images(options, root, store, steps)
        parts = {"captioning": part}
    seconds, cpu_seconds = round(time.monotonic() - started, 1), round(_cpu_seconds() - used, 1)
    duration = {"time": format_duration(seconds), "processor time": format_duration(cpu_seconds)}
    page = build_demo_page("capt demo", notices, [*parts.values()], steps.done, duration)
    write(report, page.encode())
    return {
        **{name: part.summary for name, part in parts.items()},
        "headline": " ".join(part.headline for part in parts.values()),
        "notices": [*notices],
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "report": str(report),
        "store": str(store),
    }


def print_demo(summary: dict[str, Any]) -> None:
    """Prints example captions and the result of `demo`."""
    for caption in summary["captioning"]["examples"]:
        print(caption)
    print(f"{summary['headline']} Seconds: {summary['seconds']:.0f}. Report: {summary['report']}")
    runs = [os.path.relpath(summary[part]["run_dir"]) for part in ("captioning", "captcha") if part in summary]
    # `make demo` does not put capt on the path.
    program = "capt" if shutil.which("capt") else sys.argv[0]
    print(f"Try them on images of your own: {shlex.join([program, 'serve', *runs])}")


def _cpu_seconds() -> float:
    """Returns the processor time of this process and of the finished processes that it started, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
