"""Finds in X-Robots-Tag headers whether a site refuses that its images become a part of a dataset.

`noindex, noai` concerns every robot, `otherbot: noai` another one. `noai` and `noimageai` are a convention of image
sites, `noindex`, `noimageindex` and `none` (`noindex, nofollow`) are those of search engines.
"""

import re
from collections.abc import Iterable

_REFUSALS = frozenset(("noai", "noimageai", "noindex", "noimageindex", "none"))
# Directives with a value, which are not names of robots. There may be others: only before one of `_DIRECTIVES`, or
# nothing, a name is that of a robot.
_WITH_VALUE = frozenset(("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"))
_DIRECTIVES = _REFUSALS | {"", "all", "index", "follow", "nofollow", "noarchive", "nocache", "nosnippet", "notranslate"}
_SEPARATOR = re.compile("[,;]")
_ROBOT = re.compile(r"([^\s:]+)\s*:\s*(.*)", re.DOTALL)


def find_refusal(headers: Iterable[str], robot: str) -> str | None:
    """Returns the first directive in the headers that forbids a robot of this name to use an image; None without one.

    The name of a robot applies to the directives after it in the same header, up to the next name.
    """
    for header in headers:
        named = ""
        for item in _SEPARATOR.split(header.lower()):
            directive = item.strip()
            found = _ROBOT.fullmatch(directive)
            if found and found[1] not in _WITH_VALUE and found[2] in _DIRECTIVES:
                named, directive = found[1], found[2]
            if directive in _REFUSALS and named in ("", "*", robot):
                return directive
    return None
