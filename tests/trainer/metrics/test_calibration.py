import numpy as np
import pytest

from trainer.metrics.calibration import CoverageCurve, expected_calibration_error


def test_the_calibration_error_is_the_gap_of_each_bin_weighted_by_its_size():
    confidence = np.array([0.95, 0.97, 0.99, 1.0, 0.5, 0.52])
    correct = np.array([True, True, False, True, False, False])
    expected = (abs(3 - (0.95 + 0.97 + 0.99 + 1.0)) + abs(0 - 1.02)) / 6
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected)


def test_a_confidence_that_equals_the_accuracy_of_its_bin_has_no_error():
    assert expected_calibration_error(np.full(4, 0.75), np.array([True, True, True, False])) == 0
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([True, False])) == 1


def test_the_curve_has_accuracy_and_coverage_of_every_threshold():
    confidence = np.array([0.5, 0.9, 0.9, 0.7])
    curve = CoverageCurve(confidence, np.array([False, True, True, False]))
    found = [(point.min_confidence, point.coverage, point.accuracy) for point in curve.points]
    assert found == [(0.9, 0.5, 1.0), (0.7, 0.75, pytest.approx(2 / 3)), (0.5, 1.0, 0.5)]
    for point in curve.points:
        assert (confidence >= point.min_confidence).mean() == point.coverage


def test_equal_confidences_are_kept_or_left_open_together():
    (point,) = CoverageCurve(np.full(3, 0.8), np.array([True, True, False])).points
    assert (point.coverage, point.accuracy) == (1, pytest.approx(2 / 3))


def test_the_highest_coverage_with_an_accuracy_is_found():
    # An error among the most confident labels is outweighed by right ones after it.
    confidence = np.linspace(1, 0.5, 100)
    correct = np.ones(100, bool)
    correct[[1, 99]] = False
    curve = CoverageCurve(confidence, correct)
    assert curve.find(0.985).coverage == 0.99
    assert curve.find(0.98).coverage == 1
    assert curve.find(1).coverage == 0.01
    values = curve.to_dict()
    assert values["coverage_by_accuracy"]["0.98"]["coverage"] == 1
    assert values["coverage_by_accuracy"]["0.99"]["coverage"] == 0.01
    assert values["coverage_curve"][-1] == {"min_confidence": 0.5, "coverage": 1, "accuracy": 0.98}


def test_an_accuracy_that_no_threshold_reaches_has_no_coverage():
    values = CoverageCurve(np.linspace(1, 0.5, 1000), np.arange(1000) % 2 == 1).to_dict()
    assert values["coverage_by_accuracy"] == dict.fromkeys(("0.95", "0.98", "0.99", "0.995", "0.999"))
    assert len(values["coverage_curve"]) == 200
