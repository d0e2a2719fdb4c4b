import subprocess
import sys

import pytest

from schemas.errors import UsageError
from trainer.config import CaptionerTraining, parse_options
from trainer.models.model_specs import MODELS


@pytest.mark.parametrize("spec", MODELS.values(), ids=list(MODELS))
def test_training_defaults_of_a_model_are_used(spec):
    training, _ = parse_options(spec.config, {})
    expected = {**CaptionerTraining().model_dump(), **spec.config.training_defaults}
    assert training.model_dump() == expected


def test_nic_has_the_authors_training():
    training, _ = parse_options(MODELS["nic"].config, {})
    assert (training.optimizer, training.learning_rate, training.global_clipnorm) == ("sgd", 2.0, 5.0)
    assert (training.lr_schedule, training.lr_decay_rate, training.lr_decay_epochs) == ("step", 0.5, 8)


def test_options_take_precedence_over_training_defaults():
    training, _ = parse_options(MODELS["nic"].config, {"optimizer": "adam", "learning_rate": 0.001})
    assert (training.optimizer, training.learning_rate, training.batch_size) == ("adam", 0.001, 32)


def test_configs_are_imported_without_keras():
    code = "import sys, trainer.models.model_specs; sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["nic", "m_rnn", "init_inject", "par_inject", "merge"])
def test_a_pooled_model_rejects_spatial_features_with_the_command(name):
    MODELS[name].check_shape((2048,), "1f2e")
    with pytest.raises(UsageError, match=rf"1f2e: {name} requires pooled .*\[64, 2048\].*--pooling avg"):
        MODELS[name].check_shape((64, 2048), "1f2e")
