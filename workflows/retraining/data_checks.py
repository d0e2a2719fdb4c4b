"""Rules: what a comparison is held against before anything is trained."""

from dataclasses import dataclass

from workflows.retraining.config import DataCheck, DataChecksConfig
from workflows.retraining.data_diff import DataDiff

_WORDS = {
    "lost": "of the images that the champion saw are gone",
    "failed": "of the prepared records failed",
    "length": "is how much longer or shorter the newly told is",
    "unknown": "of the newly told words are unknown to the champion",
    "drift_mean": "is how far new images' features drifted in the mean",
    "drift_covariance": "is how far new images' features drifted in spread",
}
_SHARES = ("lost", "failed", "length", "unknown")
_FAILED = "failed"


@dataclass(frozen=True)
class DataCheckResult:
    """What the rules say.

    Args:
        warnings: tuple of str. What a person should look at.
        stops: tuple of str. Why nothing is trained; empty where it may be.
        too_many_failed: bool. Whether failed records are among them.
    """

    warnings: tuple[str, ...] = ()
    stops: tuple[str, ...] = ()
    too_many_failed: bool = False


def check_data(comparison: DataDiff, rules: DataChecksConfig) -> DataCheckResult:
    """Hold a comparison against the rules."""
    warnings, stops = [], []
    for name in _WORDS:
        rule, figure = getattr(rules, name), getattr(comparison, name)
        if figure is None:
            continue
        if rule.stop is not None and figure > rule.stop:
            stops.append(_sentence(name, figure, rule.stop))
        elif rule.warn is not None and figure > rule.warn:
            warnings.append(_sentence(name, figure, rule.warn))
    return DataCheckResult(tuple(warnings), tuple(stops), _over(comparison.failed, rules.failed))


def check_failures(failed: float, rules: DataChecksConfig) -> DataCheckResult:
    """Hold the preparation alone against the rules, where there is no champion to compare with."""
    rule = rules.failed
    stops = (_sentence(_FAILED, failed, rule.stop),) if rule.stop is not None and _over(failed, rule) else ()
    return DataCheckResult(stops=stops, too_many_failed=bool(stops))


def _over(failed: float, rule: DataCheck) -> bool:
    return rule.stop is not None and failed > rule.stop


def _sentence(name: str, figure: float, limit: float) -> str:
    show = "{:.1%}" if name in _SHARES else "{:.2f}"
    return f"{show.format(figure)} {_WORDS[name]} (allowed: {show.format(limit)})"
