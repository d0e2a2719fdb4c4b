import pytest

from features.text.charset import Charset
from schemas.errors import UsageError
from trainer.data.label_limits import (
    LabelLimits,
    check_text_rows,
    check_time_steps,
    list_characters,
    resolve_config,
)
from trainer.models.configs import RecognizerConfig

LIMITS = LabelLimits(Charset.from_labels(["abc"]), max_length=4, time_steps=5)


def test_characters_and_length_are_those_of_the_train_labels():
    config = resolve_config(RecognizerConfig(), ["No", "007", "é"])
    assert (config.charset, config.max_label_length) == ("07Noé", 3)
    assert config.characters.num_classes == 6


def test_characters_and_length_that_are_set_stay():
    config = resolve_config(RecognizerConfig(charset="cab", max_label_length=9), ["a"])
    assert (config.charset, config.max_label_length) == ("abc", 9)


def test_a_mark_and_a_letter_of_a_charset_are_not_composed():
    assert RecognizerConfig(charset="z\u0301").charset == "z\u0301"


def test_train_labels_beyond_what_is_set_are_refused():
    with pytest.raises(UsageError, match=r"train labels have characters that charset lacks: '0' '7'.*Add them"):
        resolve_config(RecognizerConfig(charset="abc"), ["a07"])
    with pytest.raises(
        UsageError, match=r"the longest label, 'abc', has 3 characters, .* at most 2. Set max_label_length to 3"
    ):
        resolve_config(RecognizerConfig(max_label_length=2), ["abc", "a"])


def test_a_width_with_too_few_time_steps_is_refused_with_one_that_does():
    config = RecognizerConfig(filters=(8, 8, 8), blocks_per_stage=(0, 0, 0))
    labels = ["7" * 6, "1234567"]
    assert config.count_time_steps(33) == 10
    with pytest.raises(
        UsageError, match=r"'777777' needs 11 time steps, .* 33 pixels wide have 10\..*--width 48 or more"
    ):
        check_time_steps(labels, 33, config.count_time_steps(33), config.find_width)
    check_time_steps(labels, 48, config.count_time_steps(48), config.find_width)
    assert config.count_time_steps(40) < 11


def test_labels_that_cannot_be_output_are_counted_by_reason():
    labels = ["cab", "caté", "abcab", "aaaa", "ab"]
    assert LIMITS.allows(labels).tolist() == [True, False, False, False, True]
    assert LIMITS.describe_problems(labels) == (
        "1 have characters that the train labels lack ('t' 'é'), 1 are longer than 4 characters, "
        "1 need more than 5 time steps"
    )
    assert LIMITS.describe_problems(["cab"]) == ""


def test_many_characters_are_listed_in_part():
    assert list_characters("abcdefghijkl").endswith("'j' and 2 more")


def test_rows_of_text_share_the_height_and_multiply_the_time_steps():
    config = RecognizerConfig(filters=(8, 8), blocks_per_stage=(0, 0), text_rows=2)
    assert config.count_time_steps(40) == 20
    assert config.find_width(20) == 40
    check_text_rows(config, 5)
    with pytest.raises(
        UsageError, match=r"text_rows is 2, and images 4 pixels high have too few rows.*--height 8 or more"
    ):
        check_text_rows(config, 4)
