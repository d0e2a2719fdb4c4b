import json
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import capt
from schemas.errors import RecordError, UsageError
from trainer.export.image_graph import read_images
from trainer.runs.run import load_run

SERVE = """
import json, sys
import tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
made = served(images=tf.constant([open(name, "rb").read() for name in sys.argv[2:]]))
assert not [name for name in sys.modules if name.split(".")[0] in ("capt", "trainer", "features", "schemas", "keras")]
print(json.dumps({
    "labels": [text.decode() for text in made["labels"].numpy()],
    "scores": [float(score) for score in made["scores"].numpy()],
    "errors": [text.decode() for text in made["errors"].numpy()],
}))
"""


@pytest.fixture(scope="module")
def run(words_run):
    return load_run(words_run[0])


@pytest.fixture(scope="module")
def served(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("served") / "model"
    return out, capt.export(run=run.path, out=out)


def test_the_saved_model_recognizes_as_the_run_without_capt(run, served, captchas, tmp_path):
    out, figures = served
    assert figures["precision_difference"] == 0
    image = Image.open(BytesIO(captchas[0].data))
    for number, one in enumerate(captchas[:12]):
        (tmp_path / f"a{number}.png").write_bytes(one.data)
    image.save(tmp_path / "b.jpg", quality=95)
    image.convert("RGBA").save(tmp_path / "c.png")
    (tmp_path / "d.png").write_bytes(captchas[0].data[:200])
    image.save(tmp_path / "e.gif")
    files = sorted(tmp_path.iterdir())
    command = [sys.executable, "-I", "-c", SERVE, str(out), *map(str, files)]
    made = json.loads(subprocess.check_output(command, cwd=tmp_path, stderr=subprocess.DEVNULL, text=True))
    for file, expected, text, score, error in zip(
        files, run.recognize_many(files), made["labels"], made["scores"], made["errors"], strict=True
    ):
        if file.suffix == ".gif":
            assert error == "unsupported: neither JPEG nor PNG"
        elif isinstance(expected, RecordError):
            assert (text, error) == ("", "corrupt or truncated"), file
            assert np.isnan(score)
        else:
            assert (text, error) == (expected.text, ""), file
            assert score == pytest.approx(expected.score, abs=1e-4), file


def test_the_saved_model_computes_the_stored_pixels_exactly(run, words_store, captchas):
    pixels, problems = read_images(tf.constant([one.data for one in captchas]), run.resizer)
    assert not problems.numpy().any()
    stored = words_store.feature_tables()[0].get_many([one.key for one in captchas])
    np.testing.assert_array_equal(pixels.numpy(), stored)


def test_the_batch_size_is_free(served, captchas):
    model = tf.saved_model.load(str(served[0])).signatures["serving_default"]
    together = model(images=tf.constant([one.data for one in captchas[:9]]))["labels"].numpy().tolist()
    apart = [model(images=tf.constant([one.data]))["labels"].numpy()[0] for one in captchas[:9]]
    assert together == apart


def test_generation_options_are_rejected_for_recognizers(run, tmp_path):
    with pytest.raises(UsageError, match="--num-beams: recognizers do not use this option"):
        capt.export(run=run.path, out=tmp_path / "model", num_beams=3)
    assert not (tmp_path / "model").exists()
