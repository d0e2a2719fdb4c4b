import subprocess
import sys

import pytest

from schemas.errors import UsageError
from trainer.config import TrainingConfig, parse_options
from trainer.models.model_specs import MODELS


@pytest.mark.parametrize("spec", MODELS.values(), ids=list(MODELS))
def test_what_a_paper_sets_otherwise_reaches_the_training(spec):
    training, _ = parse_options(spec.config, {})
    expected = {**TrainingConfig().model_dump(), **spec.config.training_defaults}
    assert training.model_dump() == expected


def test_nic_is_trained_as_its_authors_train_it():
    training, _ = parse_options(MODELS["nic"].config, {})
    assert (training.optimizer, training.learning_rate, training.global_clipnorm) == ("sgd", 2.0, 5.0)
    assert (training.lr_schedule, training.lr_decay_rate, training.lr_decay_epochs) == ("step", 0.5, 8)


def test_an_option_goes_before_the_papers_training():
    training, _ = parse_options(MODELS["nic"].config, {"optimizer": "adam", "learning_rate": 0.001})
    assert (training.optimizer, training.learning_rate, training.batch_size) == ("adam", 0.001, 32)


def test_configurations_are_shown_without_keras():
    code = "import sys, trainer.models.model_specs; sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["nic", "m_rnn", "init_inject", "par_inject", "merge"])
def test_a_model_of_pooled_features_refuses_spatial_ones_and_names_the_command(name):
    MODELS[name].check_shape((2048,), "1f2e")
    with pytest.raises(UsageError, match=rf"1f2e: {name} requires pooled .*\[64, 2048\].*--pooling avg"):
        MODELS[name].check_shape((64, 2048), "1f2e")
