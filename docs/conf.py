"""Configures the documentation site; `make docs` builds it."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]

from generate import write_pages  # noqa: E402

import capt  # noqa: E402

write_pages(DOCS / "generated")

project = "capt"
version = release = capt.__version__
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
# The lexers stop at `…`, which represents other options.
suppress_warnings = ["misc.highlighting_failure"]

html_theme = "furo"
html_title = "capt"
html_show_copyright = False
