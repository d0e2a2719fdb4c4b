import numpy as np
import pytest

from trainer.evaluation.result_tables import result_tables
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


def test_the_curve_has_exact_match_and_coverage_of_every_threshold():
    confidence = np.array([0.5, 0.9, 0.9, 0.7])
    curve = CoverageCurve(confidence, np.array([False, True, True, False]))
    found = [(point.min_confidence, point.coverage, point.exact_match) for point in curve.points]
    assert found == [(0.9, 0.5, 1.0), (0.7, 0.75, pytest.approx(2 / 3)), (0.5, 1.0, 0.5)]
    for point in curve.points:
        assert (confidence >= point.min_confidence).mean() == point.coverage


def test_equal_confidences_are_kept_or_left_open_together():
    (point,) = CoverageCurve(np.full(3, 0.8), np.array([True, True, False])).points
    assert (point.coverage, point.exact_match) == (1, pytest.approx(2 / 3))


def test_the_highest_coverage_with_an_exact_match_is_found():
    # An error among the most confident labels is outweighed by right ones after it.
    confidence = np.linspace(1, 0.5, 100)
    correct = np.ones(100, bool)
    correct[[1, 99]] = False
    curve = CoverageCurve(confidence, correct)
    assert curve.find(0.985).coverage == 0.99
    assert curve.find(0.98).coverage == 1
    assert curve.find(1).coverage == 0.01
    values = curve.to_dict()
    assert values["coverage_by_exact_match"]["0.98"]["coverage"] == 1
    assert values["coverage_by_exact_match"]["0.99"]["coverage"] == 0.01
    assert values["coverage_curve"][-1] == {"min_confidence": 0.5, "coverage": 1, "exact_match": 0.98}


def test_a_threshold_has_few_digits_and_leaves_the_same_labels_open():
    confidence = np.array([0.99995, 0.99991, 0.99985, 0.99984, 0.4, 3e-9])
    correct = np.array([True, True, True, False, True, True])
    curve = CoverageCurve(confidence, correct)
    for exact_match, expected in ((1, 0.99985), (0.8, 3e-9)):
        point = curve.find(exact_match)
        assert point.min_confidence == expected
        kept = confidence >= point.min_confidence
        assert (kept.mean(), correct[kept].mean()) == (point.coverage, point.exact_match)
    assert CoverageCurve(np.array([1.0, 0.93, 0.5]), np.array([True, True, False])).find(1).min_confidence == 0.9
    assert CoverageCurve(np.zeros(2), np.ones(2, bool)).find(1).min_confidence == 0


def test_the_table_has_the_threshold_or_off_if_all_labels_remain():
    correct = np.array([*[True] * 98, False, False])
    curve = CoverageCurve(np.array([*[0.99985] * 98, 0.99984, 0.99983]), correct)
    errors = {"temperature": 1.0, "ece": 0.0, "ece_uncalibrated": 0.0}
    (table,) = result_tables({**curve.to_dict(), **errors})
    assert [row[-2:] for row in table.rows] == [("100.0", "off")] * 2 + [("98.0", "0.99985")] * 3


def test_an_exact_match_that_no_threshold_reaches_has_no_coverage():
    values = CoverageCurve(np.linspace(1, 0.5, 1000), np.arange(1000) % 2 == 1).to_dict()
    assert values["coverage_by_exact_match"] == dict.fromkeys(("0.95", "0.98", "0.99", "0.995", "0.999"))
    assert len(values["coverage_curve"]) == 200
