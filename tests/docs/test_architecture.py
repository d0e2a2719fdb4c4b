"""docs/architecture.md lists every module with the line that its own docstring begins with."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "features", "pipelines", "trainer", "workflows")


def test_every_module_stands_in_the_architecture_page_with_its_purpose() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name == "__init__.py" and path.parent.name in PACKAGES:
                continue
            purpose = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            line = f"| `{path.relative_to(ROOT).as_posix()}` | {' '.join(purpose.split(chr(10) * 2)[0].split())} |"
            assert line in page, f"docs/architecture.md lacks or misstates: {line}"
