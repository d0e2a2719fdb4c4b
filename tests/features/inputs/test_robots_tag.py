"""X-Robots-Tag refuses images for every robot or for capt, and directives for others have no effect."""

import pytest

from features.inputs.robots_tag import find_refusal


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        ([], None),
        (["all"], None),
        (["noarchive, nosnippet"], None),
        (["noai"], "noai"),
        (["NoImageAI"], "noimageai"),
        (["nofollow, noindex"], "noindex"),
        (["nofollow", "noimageindex"], "noimageindex"),
        (["otherbot: noai"], None),
        (["otherbot: noai, noindex"], None),
        (["otherbot: noai, capt: noindex"], "noindex"),
        (["capt: noai, otherbot: noindex"], "noai"),
        (["CAPT : noai"], "noai"),
        (["*: noai"], "noai"),
        (["otherbot: nofollow", "noai"], "noai"),
        (["max-image-preview:large, noai"], "noai"),
        (["unavailable_after: 25 Jun 2010 15:00:00 PST, noindex"], "noindex"),
        (["unavailable_after: Friday, 25-Jun-10 15:00:00 UTC, noindex"], "noindex"),
        (["noaid, x-noai"], None),
        ([":", ",,", "noai:"], None),
        (["none"], "none"),
        (["nofollow; noindex"], "noindex"),
        (["max-image-preview:none, noai"], "noai"),
        (["other-directive: value, noai"], "noai"),
    ],
)
def test_directives_concern_every_robot_or_those_that_they_name(headers: list[str], refusal: str | None) -> None:
    assert find_refusal(headers, "capt") == refusal
