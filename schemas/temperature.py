"""Checks the softmax temperature of sampling."""

# A smaller temperature would make logits overflow, and a larger one would allow masked tokens.
_MIN, _MAX = 1e-6, 1e6


def check_temperature(temperature: float) -> float:
    """Returns a temperature; ValueError if it is neither 0 (greedy decoding) nor within the limits."""
    if temperature and not _MIN <= temperature <= _MAX:
        allowed = f"0 (greedy decoding), or from {_MIN:g} to {_MAX:g}"
        raise ValueError(f"{temperature:g} is not a temperature: it is {allowed}")
    return temperature
