import pytest

from features.runtime import numerics
from schemas.errors import UsageError
from trainer.config import CaptionerTraining, Hyperparameters, parse_options, parse_recognizer
from trainer.models.configs import SoftAttentionConfig
from trainer.models.model_specs import MODELS, model_spec


def test_the_defaults_are_the_published_sizes():
    training, model = parse_options(SoftAttentionConfig, {})
    assert (model.embedding_dim, model.units, model.projection_dim, training.batch_size) == (256, 512, 256, 64)


def test_options_reach_both_parts():
    training, model = parse_options(SoftAttentionConfig, {"units": 32, "learning_rate": 0.01})
    assert (model.units, training.learning_rate) == (32, 0.01)


def test_an_unknown_option_is_rejected():
    with pytest.raises(UsageError, match=r"unknown option 'unit'"):
        parse_options(SoftAttentionConfig, {"unit": 32})


@pytest.mark.parametrize(("name", "value"), [("units", 0), ("learning_rate", "fast"), ("dropout", 1.5)])
def test_an_invalid_value_is_rejected(name, value):
    with pytest.raises(UsageError, match=f"{name}: .*got"):
        parse_options(SoftAttentionConfig, {name: value})


@pytest.mark.parametrize("spec", MODELS.values(), ids=list(MODELS))
def test_no_name_is_both_a_training_and_a_model_option(spec):
    assert not set(spec.config.model_fields) & set(CaptionerTraining.model_fields)


def test_an_unknown_model_is_rejected():
    with pytest.raises(UsageError, match=r"unknown model 'soft'.*soft_attention"):
        model_spec("soft")


def test_a_spatial_model_rejects_pooled_features_with_the_command():
    spec = model_spec("soft_attention")
    spec.check_shape((64, 2048), "1f2e")
    with pytest.raises(UsageError, match=r"1f2e: soft_attention requires spatial .*\[2048\].*--pooling none"):
        spec.check_shape((2048,), "1f2e")


def test_pixels_are_rejected_with_the_command():
    with pytest.raises(UsageError, match=r"1f2e: .*pixels \[24, 32, 3\].*--extractor inception_v3 --pooling none"):
        model_spec("soft_attention").check_shape((24, 32, 3), "1f2e")


@pytest.mark.parametrize(
    ("flags", "precision"), [("avx2 avx512_bf16", "mixed_bfloat16"), ("avx2 avx512f", "float32"), ("", "float32")]
)
def test_precision_auto_is_resolved_by_the_processor(monkeypatch, flags, precision):
    monkeypatch.setattr(numerics, "read_cpu_flags", lambda: frozenset(flags.split()))
    training, _ = parse_recognizer("quick", {})
    assert training.resolved().precision == precision
    assert training.resolved().resolved() == training.resolved()


def test_an_explicit_precision_is_kept():
    training, _ = parse_recognizer("quick", {"precision": "mixed_float16"})
    assert training.resolved() == training


def test_the_default_validation_split_is_shown_and_identifies_no_run():
    default = Hyperparameters({}, "nic", *parse_options(MODELS["nic"].config, {}))
    assert default.to_dict(resolve=False)["validation_split"] == "val"
    assert "validation_split" not in default.to_dict()
    changed = Hyperparameters({}, "nic", *parse_options(MODELS["nic"].config, {"validation_split": "test"}))
    assert changed.to_dict()["validation_split"] == "test"


def test_settings_without_effect_on_weights_and_scores_identify_no_run():
    plain = Hyperparameters({}, "nic", *parse_options(MODELS["nic"].config, {}))
    options = {"keep_epochs": 3, "plot_from_zero": True, "padded_loss": True, "sample_temperatures": [0, 1]}
    changed = Hyperparameters({}, "nic", *parse_options(MODELS["nic"].config, options))
    assert changed.to_dict() == plain.to_dict()
    assert changed.to_dict(resolve=False)["keep_epochs"] == 3
    assert not {*options, "sample_images", "num_validation_images"} & plain.to_dict().keys()


def test_the_number_of_validation_images_may_select_another_epoch_so_it_identifies_a_run():
    options = {"num_validation_images": 100}
    changed = Hyperparameters({}, "nic", *parse_options(MODELS["nic"].config, options))
    assert changed.to_dict()["num_validation_images"] == 100
    recognizer = Hyperparameters({}, "recognizer", *parse_recognizer("quick", {}))
    assert recognizer.to_dict()["num_validation_images"] == 2000
