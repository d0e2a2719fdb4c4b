"""The pages of the documentation, and the code that they show."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(path for path in (ROOT / "docs").rglob("*.md") if "generated" not in path.parts),
]
_BLOCK = re.compile(r"```(bash|python|py|yaml)\n(.*?)```", re.DOTALL)
_FILE_NAME = re.compile(r"# ([\w-]+\.(?:yaml|py))\n")


@dataclass(frozen=True)
class Code:
    """A command, a Python program, or a file whose first line is a comment with its name.

    Attributes:
        page: Path of the page from the root of the repository.
        language: `bash`, `python` or `yaml`.
        text: One line of bash, or the whole block.
    """

    page: str
    language: str
    text: str

    @property
    def file_name(self) -> str | None:
        name = _FILE_NAME.match(self.text)
        return name[1] if name else None


def read_code(path: Path) -> list[Code]:
    """Returns the code of a page in its order."""
    page, code = str(path.relative_to(ROOT)), []
    for language, text in _BLOCK.findall(path.read_text(encoding="utf-8")):
        if language == "bash":
            lines = text.replace("\\\n", " ").splitlines()
            code += [Code(page, "bash", " ".join(line.split())) for line in lines if line.strip()]
        else:
            code.append(Code(page, "python" if language == "py" else language, text))
    return code


CODE = {str(path.relative_to(ROOT)): read_code(path) for path in PAGES}
