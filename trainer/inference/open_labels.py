"""Decides which labels are left open."""

import logging

from trainer.decoding.label_decoder import Prediction
from trainer.runs.recognizer_run import RecognizerRun

_log = logging.getLogger("capt.inference")


def is_open(prediction: Prediction, min_confidence: float | None) -> bool:
    """Returns whether a label is left open: its confidence is below `--min-confidence`, or it has no character."""
    return min_confidence is not None and (not prediction.text or prediction.confidence < min_confidence)


def warn_if_uncalibrated(run: RecognizerRun, min_confidence: float | None) -> None:
    """Logs a warning if `--min-confidence` is compared with a confidence that is not calibrated."""
    if min_confidence is not None and not run.is_calibrated:
        _log.warning("--min-confidence %g: %s", min_confidence, run.confidence_note)
