import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import capt
from schemas.errors import RecordError, UsageError
from trainer.runs.run import load_run

SIZES = {
    "units": 48,
    "embedding_dim": 24,
    "attention_dim": 24,
    "projection_dim": 24,
    "output_dim": 32,
    "batch_size": 16,
    "num_sample_captions": 0,
}

SERVE = """
import json, sys
import tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
images = [open(name, "rb").read() for name in sys.argv[2:]]
made = served(images=tf.constant(images))
assert not [name for name in sys.modules if name.split(".")[0] in ("capt", "trainer", "features", "schemas", "keras")]
print(json.dumps({
    "captions": [text.decode() for text in made["captions"].numpy()],
    "scores": [float(score) for score in made["scores"].numpy()],
    "errors": [text.decode() for text in made["errors"].numpy()],
}))
"""


def pictures(shown, folder):
    """The same scene in every guise, and some that are none."""
    image = Image.open(BytesIO(shown[0].data)).convert("RGB")
    turned = Image.Exif()
    turned[274] = 6
    image.convert("L").save(folder / "grey.png")
    image.convert("RGBA").save(folder / "rgba.png")
    image.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    image.transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=turned, quality=95)
    (folder / "plain.png").write_bytes(shown[0].data)
    (folder / "other.png").write_bytes(shown[9].data)
    (folder / "corrupt.jpg").write_bytes((folder / "cmyk.jpg").read_bytes()[:300])
    image.save(folder / "still.gif")
    return sorted(folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "beam"), [("float16", 1), ("int8", 3)])
def test_the_saved_model_captions_as_the_run_without_capt(squares, shown, tmp_path, dtype, beam):
    store = squares.make_store(tmp_path / "store", shown, dtype=dtype)
    capt.train_captioner(
        store=store.path, run_dir=tmp_path / "run", epochs=6, hyperparameters={**SIZES, "learning_rate": 0.006}
    )
    figures = capt.export(run=tmp_path / "run", out=tmp_path / "served", num_beams=beam)
    assert figures["precision_difference"] == 0
    (tmp_path / "pictures").mkdir()
    files = pictures(shown, tmp_path / "pictures")
    command = [sys.executable, "-I", "-c", SERVE, str(tmp_path / "served"), *map(str, files)]
    made = json.loads(subprocess.check_output(command, cwd=tmp_path, stderr=subprocess.DEVNULL, text=True))
    run = load_run(tmp_path / "run")
    for file, expected, *served in zip(
        files,
        run.caption_many(files, run.decoding(num_beams=beam)),
        made["captions"],
        made["scores"],
        made["errors"],
        strict=True,
    ):
        text, score, error = served
        if file.suffix == ".gif":
            assert error == "unsupported: neither JPEG nor PNG"
        elif isinstance(expected, RecordError):
            assert (text, error) == ("", "corrupt or truncated"), file
            assert np.isnan(score)
        else:
            assert (text, error) == (expected.text, ""), file
            assert score == pytest.approx(expected.score, abs=1e-3), file
    (asset,) = (tmp_path / "served" / "assets").iterdir()
    assert asset.read_bytes() == (tmp_path / "run" / "vocabulary.txt").read_bytes()


def test_invalid_exports_are_rejected(squares, shown, tmp_path):
    store = squares.make_store(tmp_path / "store", shown[:16])
    capt.train_captioner(store=store.path, run_dir=tmp_path / "run", epochs=1, hyperparameters=SIZES)
    with pytest.raises(UsageError, match="unknown option 'temperature'"):
        capt.export(run=tmp_path / "run", out=tmp_path / "served", temperature=1.0)
    Path(tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match=r"there: the output directory already exists"):
        capt.export(run=tmp_path / "run", out=tmp_path / "there")
