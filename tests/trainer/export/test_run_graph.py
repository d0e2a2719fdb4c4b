import json
import subprocess
import sys
import unicodedata
from io import BytesIO

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import capt
from features.store.storage_dtypes import decode, encode
from features.text.visual_order import logical_positions
from schemas.errors import RecordError, UsageError
from trainer.export.image_graph import read_images
from trainer.export.run_graph import GraphRun, find_logical_order, round_as_stored
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


def test_the_graph_orders_characters_as_the_recognizer_does():
    rng = np.random.default_rng(0)
    labels = ["".join(rng.choice(list("ab12٢-.% ב"), rng.integers(1, 9))) for _ in range(200)]
    labels += ["".join(rng.choice(list("ab12٢-/% בب"), rng.integers(1, 9))) for _ in range(200)]
    classes = [list(map(unicodedata.bidirectional, label)) + [""] * (9 - len(label)) for label in labels]
    orders = find_logical_order(tf.constant(classes)).numpy().tolist()
    for label, order in zip(labels, orders, strict=True):
        assert order == [*logical_positions(label), *range(len(label), 9)], label


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


def random_features(first, last):
    """Features of 200 images, with locations of every magnitude from 10^first to 10^last."""
    random = np.random.default_rng(5)
    limit = np.finfo(np.float32).max
    magnitudes = 10.0 ** random.uniform(first, last, (200, 9, 1))
    return np.clip(random.standard_normal((200, 9, 40)) * magnitudes, -limit, limit).astype(np.float32)


def round_both(features, dtype):
    """Features as the graph and as a feature table round them, NaN for an image that is rejected."""
    rounded, fits = tf.function(lambda values: round_as_stored(values, dtype))(tf.constant(features))
    stored = np.full(features.shape, np.nan, np.float32)
    for number, image in enumerate(features):
        try:
            stored[number] = decode(encode(image, dtype))
        except RecordError:
            continue
    rounded = tf.cast(rounded, tf.float32).numpy()
    assert (rounded[~fits.numpy()] == 0).all()
    rounded[~fits.numpy()] = np.nan
    return rounded, stored


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
@pytest.mark.parametrize("magnitudes", [(-1, 1), (-8, 5), (-34, 38)])
def test_the_graph_rounds_features_exactly_as_a_table(dtype, magnitudes):
    np.testing.assert_array_equal(*round_both(random_features(*magnitudes), dtype))


@pytest.mark.filterwarnings("ignore:overflow encountered in multiply")  # int8 of the largest float32
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8"])
def test_the_graph_rejects_the_features_that_a_table_rejects(dtype):
    features = np.ones((14, 2, 3), np.float32)
    extremes = [np.nan, np.inf, -np.inf, 65519, 65520, -65520, 3.38e38, 3.39e38, -3.39e38, 3.4028235e38, 0, 1e-30]
    features[: len(extremes), 1, 1] = extremes
    features[12] = 0
    rounded, stored = round_both(features, dtype)
    np.testing.assert_array_equal(rounded, stored)
    assert np.isnan(stored[:3]).all()


def test_int8_differs_only_near_subnormal_numbers():
    features = random_features(-46, -34)
    peak = np.abs(features).max(axis=-1)
    rounded, stored = round_both(features, "int8")
    differs = (rounded != stored).any(axis=-1)
    assert differs.any()
    assert peak[differs].max() < 254 * np.finfo(np.float32).tiny < 3e-36
    assert np.abs(rounded - stored).max() < 3e-36


def test_an_image_whose_features_do_not_fit_has_an_error(run, captchas):
    graph = GraphRun(
        run, "labels", lambda features: (tf.fill(tf.shape(features)[:1], "text"), {"scores": features[:, 0, 0, 0]})
    )
    graph._table_config = graph._table_config.model_copy(update={"dtype": "float16"})
    graph._extract = lambda pixels: tf.cast(pixels, tf.float32) * tf.constant([1.0, 1e6])[:, None, None, None]
    made = graph.serve(tf.constant([captchas[0].data] * 2))
    assert made["labels"].numpy().tolist() == [b"text", b""]
    assert made["errors"].numpy().tolist() == [
        b"",
        b"a feature is NaN or infinite, or does not fit the storage dtype",
    ]
    assert np.isnan(made["scores"].numpy()).tolist() == [False, True]
