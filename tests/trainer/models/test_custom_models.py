"""A class in a user's file is trained, and the run loads it from its own copy."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import capt
from schemas.errors import CaptError, CorruptFileError, StoreError, UsageError
from tests.docs.pages import CODE
from tests.trainer.words import SMALL
from trainer.models.custom_models import read_custom_model
from trainer.models.model_specs import model_spec, recognizer_spec
from trainer.runs.metadata import read_metadata
from trainer.runs.run import load_run

PAGE = {code.file_name: code.text for code in CODE["docs/get_started/own_model.md"] if code.file_name}
CAPTIONER, RECOGNIZER = PAGE["own_captioner.py"], PAGE["own_recognizer.py"]
NAME = "own_captioner.py:OwnCaptioner"
CHANNELS = 20


def written(directory, text=CAPTIONER, name="own_captioner.py"):
    path = directory / name
    path.write_text(text)
    return f"{path}:{'OwnCaptioner' if text != RECOGNIZER else 'OwnRecognizer'}"


def changed(old, new):
    assert old in CAPTIONER
    return CAPTIONER.replace(old, new)


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    root = tmp_path_factory.mktemp("own")
    reference = written(root, changed("spatial = False", "spatial = True").replace(SUM_OLD, SUM_NEW))
    options = {"store": store.path, "run_dir": root / "run", "model": reference, "epochs": 1}
    options |= {"num_sample_captions": 0}
    result = capt.train_captioner(**options, units=16, embedding_dim=8)
    (root / "own_captioner.py").unlink()
    return root / "run", result


# The store has spatial features, which the model averages.
SUM_OLD = "self.image_layer(self.feature_normalization(features))"
SUM_NEW = "self.image_layer(ops.mean(self.feature_normalization(features), axis=1))"

NEEDS_TARGETS = """
        if CONDITION:
            self.add_loss(ops.mean(ops.cast(inputs["targets"], "float32")))
"""


def test_the_example_has_about_forty_lines():
    assert len([line for line in CAPTIONER.splitlines() if line.strip()]) <= 42


def test_a_run_captions_with_its_own_copy(run, shown):
    root, result = run
    assert result["model"] == NAME
    assert load_run(root).caption(shown[0].data).text
    assert load_run(root).metadata.architecture == {"embedding_dim": 8, "units": 16}


def test_a_changed_copy_is_never_run(run, tmp_path):
    root = shutil.copytree(run[0], tmp_path / "run")
    (root / "model.py").write_text("raise SystemExit('this must not run')")
    with pytest.raises(CorruptFileError, match=r"model\.py: the file was changed after training, so it is not run"):
        load_run(root)
    (root / "model.py").unlink()
    with pytest.raises(CorruptFileError, match=r"model\.py: the file of the model is missing"):
        load_run(root)


def test_another_file_cannot_continue_a_run(run, store, tmp_path):
    root = shutil.copytree(run[0], tmp_path / "run")
    reference = written(tmp_path, CAPTIONER.replace("spatial = False", "spatial = True"))
    options = {"store": store.path, "run_dir": root, "model": reference, "epochs": 2}
    with pytest.raises(StoreError, match="SHA-256 of the model's file"):
        capt.train_captioner(**options, units=16, embedding_dim=8)


def test_the_same_file_in_another_place_resumes_a_run(run, store, tmp_path):
    root = shutil.copytree(run[0], tmp_path / "run")
    shutil.copy(root / "model.py", tmp_path / "own_captioner.py")
    options = {"store": store.path, "run_dir": root, "model": f"{tmp_path}/{NAME}", "epochs": 2}
    assert capt.train_captioner(**options, units=16, embedding_dim=8)["epochs"] == 2


def test_capts_own_models_have_no_source_in_their_metadata(words_run):
    assert "source" not in read_metadata(words_run[0]).model_dump(mode="json")


def test_a_run_of_an_own_model_is_evaluated_and_exported(run, tmp_path):
    root = shutil.copytree(run[0], tmp_path / "run")
    assert "bleu_1" in capt.evaluate(runs=[root], split="val", num_examples=0)
    capt.export(run=root, out=tmp_path / "served")
    assert (tmp_path / "served" / "saved_model.pb").is_file()


def test_an_own_recognizer_is_trained_and_recognizes(words_store, captchas, tmp_path):
    reference = written(tmp_path, RECOGNIZER, "own_recognizer.py")
    options = {"store": words_store.path, "run_dir": tmp_path / "run", "epochs": 1, "steps_per_epoch": 2}
    capt.train_captcha(**options, model=reference, hyperparameters=SMALL)
    assert (tmp_path / "run" / "model.py").read_text() == RECOGNIZER
    assert load_run(tmp_path / "run").recognize(captchas[0].data).text is not None


def test_the_defaults_of_an_own_model_are_printed(tmp_path):
    result = capt.config(model=written(tmp_path), summary=False)
    assert (result["embedding_dim"], result["units"], result["epochs"]) == (64, 128, 20)


def test_a_file_is_run_once_for_its_content(tmp_path):
    first = read_custom_model(written(tmp_path)).load()
    assert read_custom_model(written(tmp_path, name="copy.py")).load() is first


# === Wrong files ===


def test_a_file_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"--model: the file .*none\.py does not exist"):
        model_spec(f"{tmp_path}/none.py:Net")


def test_a_class_that_does_not_exist_is_refused_with_those_there_are(tmp_path):
    path = written(tmp_path).rpartition(":")[0]
    with pytest.raises(UsageError, match=r"own_captioner\.py: no class 'Net'.*OwnConfig, OwnCaptioner"):
        model_spec(f"{path}:Net")
    with pytest.raises(UsageError, match="OwnConfig is not a subclass of Captioner or Recognizer"):
        model_spec(f"{path}:OwnConfig")


def test_a_captioner_is_no_recognizer(tmp_path):
    with pytest.raises(UsageError, match=r"is not a recognizer\. Use `capt train captioner`"):
        recognizer_spec(written(tmp_path))
    with pytest.raises(UsageError, match=r"is not a captioner\. Use `capt train captcha`"):
        model_spec(written(tmp_path, RECOGNIZER, "own_recognizer.py"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import nothing_like_this\n", r"own_captioner\.py:1: ModuleNotFoundError"),
        ("\ndef f(:\n", r":2: SyntaxError"),
        ("\n\nraise SystemExit('no GPU')\n", r"own_captioner\.py:3: SystemExit: no GPU"),
    ],
)
def test_an_error_in_the_file_names_its_line(tmp_path, text, problem):
    with pytest.raises(CaptError, match=problem):
        model_spec(written(tmp_path, text))


def test_a_hyperparameter_of_training_cannot_be_one_of_the_model(tmp_path):
    reference = written(tmp_path, changed("units: int = 128", "units: int = 128\n    epochs: int = 3"))
    with pytest.raises(UsageError, match="OwnConfig: epochs is a hyperparameter of training"):
        capt.config(model=reference)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("return self.logits_layer(hidden), {", "return 2 * self.logits_layer(hidden), {", "return different logits"),
        ("return self.logits_layer(hidden), {", "return hidden, {", "return logits of shapes"),
        ("return self.logits_layer(hidden), {", "return self.no_layer(hidden), {", r"own_captioner\.py:\d+: Attribute"),
    ],
)
def test_a_model_whose_two_ways_differ_is_refused_before_training(store, tmp_path, old, new, problem):
    reference = written(
        tmp_path, changed(old, new).replace("spatial = False", "spatial = True").replace(SUM_OLD, SUM_NEW)
    )
    options = {"store": store.path, "run_dir": tmp_path / "run", "epochs": 1}
    with pytest.raises(UsageError, match=problem):
        capt.train_captioner(**options, model=reference)
    assert not (tmp_path / "run" / "run.json").exists(), "the corrected file must be accepted in this directory"


@pytest.mark.parametrize(("condition", "objective"), [("training", "cider_d"), ("True", "cross_entropy")])
def test_a_model_that_requires_targets_is_refused_where_there_are_none(store, tmp_path, condition, objective):
    text = changed("def call(self, inputs, training=False):", f"def call(self, inputs, training=False):{NEEDS_TARGETS}")
    text = text.replace("CONDITION", condition).replace("spatial = False", "spatial = True").replace(SUM_OLD, SUM_NEW)
    options = {"store": store.path, "run_dir": tmp_path / "run", "hyperparameters": {"objective": objective}}
    with pytest.raises(UsageError, match=r'own_captioner\.py:\d+: call reads inputs\["targets"\], which is absent in'):
        capt.train_captioner(**options, model=written(tmp_path, text))
    assert not (tmp_path / "run" / "run.json").exists()


def test_an_error_in_the_constructor_or_in_build_names_its_line(tmp_path):
    for number, (old, new) in enumerate(
        {"units = self.config": "units = self.confg", "image_layer.build(": "image_layer.bld("}.items()
    ):
        reference = written(tmp_path, changed(old, new), f"own_{number}.py")
        with pytest.raises(UsageError, match=rf"own_{number}\.py:\d+: AttributeError: .*Correct the model"):
            capt.config(model=reference, summary=True)


def test_a_recognizer_without_the_outputs_of_every_head_is_refused_before_training(words_store, tmp_path):
    text = (
        RECOGNIZER
        + '\n    def call(self, images, training=False):\n        return {"ctc": super().call(images)["ctc"]}\n'
    )
    path = tmp_path / "own_recognizer.py"
    path.write_text(text)
    options = {"store": words_store.path, "run_dir": tmp_path / "run", "hyperparameters": SMALL}
    with pytest.raises(UsageError, match="call must return ctc, attention and cells, but it returns ctc"):
        capt.train_captcha(**options, model=f"{path}:OwnRecognizer")


def test_the_summary_of_an_own_model_lists_its_layers(tmp_path):
    result = capt.config(model=written(tmp_path), summary=True, vocab_size=10, feature_shape=str(CHANNELS))
    names = {layer["name"] for layer in result["layers"]}
    assert names == {"feature_normalization", "image", "embedding", "recurrence", "logits"}
    assert np.prod(result["feature_shape"]) == CHANNELS


def test_names_and_files_are_accepted_and_nothing_else():
    with pytest.raises(UsageError, match=r"--model: expected soft_attention, .* or FILE.py:Class, got 'net'"):
        capt.train_captioner(store="s", run_dir="r", model="net")
    assert Path(NAME.rpartition(":")[0]).suffix == ".py"
