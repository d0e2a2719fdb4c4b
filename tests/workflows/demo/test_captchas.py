"""The demo's unseen CAPTCHAs all count, whether they can be read or not."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from features.synthetic.captchas.dataset import IMAGE_DIR, TRUTH_FILE
from schemas.errors import RecordError
from workflows.demo import captchas


def test_an_image_that_cannot_be_decoded_counts_as_read_wrongly(tmp_path: Path) -> None:
    first = captchas.NUM_TRAIN + captchas.NUM_VAL
    names = [f"a{number}" for number in range(first, first + captchas.NUM_UNSEEN)]
    (tmp_path / IMAGE_DIR).mkdir(parents=True)
    for name in names:
        (tmp_path / IMAGE_DIR / f"{name}.png").write_bytes(b"")
    (tmp_path / TRUTH_FILE).write_text("".join(f"{name} cat\n" for name in names))

    def recognize(images: list[bytes]) -> list[Any]:
        return [RecordError("decode", "corrupt", "it ends early"), *[SimpleNamespace(text="cat")] * (len(images) - 1)]

    read = captchas._read(tmp_path, SimpleNamespace(recognize_many=recognize))  # type: ignore[arg-type]
    assert [one.is_right for one in read] == [False, *[True] * (captchas.NUM_UNSEEN - 1)]
