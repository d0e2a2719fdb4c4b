"""The values that must not change; they are in `expected.json`."""

import json
from pathlib import Path
from typing import Any

EXPECTED: dict[str, Any] = json.loads(Path(__file__).with_name("expected.json").read_text())
