"""Finds in X-Robots-Tag headers whether a site refuses that its images become a part of a dataset.

`noindex, noai` concerns every robot, `otherbot: noai` another one. `noai` and `noimageai` are a convention of image
sites, `noindex` and `noimageindex` are those of search engines.
"""

import re
from collections.abc import Iterable

_REFUSALS = frozenset(("noai", "noimageai", "noindex", "noimageindex"))
# Directives with a value, which are not names of robots.
_WITH_VALUE = frozenset(("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"))
_ROBOT = re.compile(r"([^\s:]+)\s*:\s*(.*)", re.DOTALL)


def find_refusal(headers: Iterable[str], robot: str) -> str | None:
    """Returns the first directive in the headers that forbids a robot of this name to use an image; None without one.

    The name of a robot applies to the directives after it in the same header, up to the next name.
    """
    for header in headers:
        named = ""
        for item in header.lower().split(","):
            directive = item.strip()
            found = _ROBOT.fullmatch(directive)
            if found and found[1] not in _WITH_VALUE:
                named, directive = found[1], found[2]
            if directive in _REFUSALS and named in ("", "*", robot):
                return directive
    return None
