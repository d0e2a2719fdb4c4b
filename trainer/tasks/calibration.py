"""Calibrates the confidence of a trained recognizer on validation images.

stored pixels → logits of the best weights → temperature → expected calibration error of labels and of characters
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.store import FeatureTable
from trainer.data.captcha_data import LabelledImages
from trainer.decoding.label_decoder import LabelDecoder, log_softmax
from trainer.decoding.label_scores import score_labels
from trainer.decoding.temperature import fit_temperature
from trainer.evaluation.recognition_metrics import RecognitionScores
from trainer.metrics.calibration import expected_calibration_error
from trainer.runs.metadata import Calibration
from trainer.runs.recognizer_run import RecognizerRun

# One parameter needs few images; with fewer, one more error would change every confidence much.
_MIN_IMAGES = 20
# 128 MiB of float32. With 40 time steps these are 31,068 images with 26 letters, and 279 with 3,000 characters.
_MAX_LOGITS = 1 << 25
_BATCH_SIZE = 256


def max_images(num_logits: int) -> int:
    """Returns the maximum number of images to calibrate on, so that their logits fit into 128 MiB; at least 20.

    Args:
        num_logits: Number of logits per image.
    """
    return max(_MIN_IMAGES, _MAX_LOGITS // num_logits)


def calibrate(run: RecognizerRun, table: FeatureTable, images: LabelledImages | None, checkpoint: str) -> Calibration:
    """Fits the temperature of a run on labeled images, and measures the calibration error before and after.

    With fewer than 20 images the temperature is 1.

    Every image counts, also one whose label the recognizer cannot output: it is wrong at any confidence.

    Args:
        run: The run, not calibrated.
        table: The feature table with the images.
        images: Validation images, at most `max_images`, because all their logits are in memory; None without
            validation.
        checkpoint: Name of the checkpoint with the weights of the run.
    """
    if images is None or len(images) < _MIN_IMAGES:
        return Calibration(checkpoint=checkpoint, images=len(images) if images else 0)
    config, logits = run.metadata.config, _compute_logits(run, table, images)
    decoder = LabelDecoder(config.characters, config.head, "greedy")
    before, ids = _measure(decoder, logits, images.labels), list(map(decoder.decode_ids, logits))

    def score(temperature: float) -> NDArray[np.float32]:
        scores = [
            score_labels(config.head, log_softmax(batch / np.float32(temperature)), labels)
            for batch, labels in zip(logits, ids, strict=True)
        ]
        return np.concatenate(scores)

    # Rounded, so that resumed training, whose weights may differ in the last bits, has the same temperature.
    temperature = round(fit_temperature(score, before.correct), 3)
    after = _measure(decoder, [batch / np.float32(temperature) for batch in logits], images.labels)
    return Calibration(
        checkpoint=checkpoint,
        images=len(images),
        temperature=temperature,
        ece=after.ece,
        ece_uncalibrated=before.ece,
        character_ece=after.character_ece,
        character_ece_uncalibrated=before.character_ece,
    )


@dataclass(frozen=True)
class _Measured:
    """Whether each greedy label is right, bool [N], and the calibration errors of labels and characters."""

    correct: NDArray[np.bool_]
    ece: float
    character_ece: float | None


def _measure(decode: LabelDecoder, logits: Sequence[NDArray[np.float32]], labels: Sequence[str]) -> _Measured:
    predictions = [one for batch in logits for one in decode(batch)]
    scores = RecognitionScores(tuple(labels), tuple(one.text for one in predictions))
    ece = expected_calibration_error(np.array([one.confidence for one in predictions]), scores.correct)
    return _Measured(scores.correct, ece, scores.measure_characters([one.character_confidence for one in predictions]))


def _compute_logits(run: RecognizerRun, table: FeatureTable, images: LabelledImages) -> list[NDArray[np.float32]]:
    """Computes the logits of images in batches."""
    table.ensure_local(images.rows)
    starts = range(0, len(images), _BATCH_SIZE)
    batches: Iterator[NDArray[Any]] = (table.read(images.rows[start : start + _BATCH_SIZE]) for start in starts)
    return list(map(run.logits, batches))
