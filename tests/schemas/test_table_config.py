"""Fingerprints stay the same, so that tables of earlier versions are found."""

import pytest

from schemas.errors import UsageError
from schemas.table_config import CaptionTableConfig, FeatureTableConfig, parse_filters

INCEPTION = FeatureTableConfig(
    extractor="inception_v3", weights="random:0", layer="mixed10", height=299, width=299, precision="float32"
)
MOBILENET = FeatureTableConfig(
    extractor="mobilenet_v3_small",
    weights="imagenet:abc",
    layer="output",
    pooling="avg",
    height=224,
    width=224,
    precision="bfloat16",
    dtype="int8",
    format="parquet",
    compression="zstd",
)
TEXT = CaptionTableConfig(dataset="coco", vocabulary="train:00")

KNOWN = (
    (INCEPTION, "9baa5cb1623d316c56f0ae27c639cc0976e7688b1ffc031ad69418981df9beca"),
    (MOBILENET, "3996b8e29851f17cf7627afd78ccf41ea74a7a885374b1b88df478df1952186e"),
    (TEXT, "dae204f6b360e689c2ecd805bfaa23f6705c5a4500dfb29afcbc249416b53b41"),
)


@pytest.mark.parametrize(("table_config", "fingerprint"), KNOWN, ids=["inception_v3", "mobilenet_v3_small", "text"])
def test_table_configs_of_0_1_0_keep_their_fingerprints(table_config, fingerprint):
    assert table_config.fingerprint == fingerprint


@pytest.mark.parametrize(
    "changed", [{"resize": "tf-bilinear"}, {"resize": "draft-bilinear"}, {"fit": "crop"}, {"shorter_side": 320}]
)
def test_resize_settings_are_part_of_the_fingerprint(changed):
    assert INCEPTION.model_copy(update=changed).fingerprint != INCEPTION.fingerprint


def test_a_table_config_round_trips_without_null_fields():
    assert FeatureTableConfig.model_validate_json(INCEPTION.canonical) == INCEPTION
    assert b"shorter_side" not in INCEPTION.canonical
    cropped = INCEPTION.model_copy(update={"fit": "crop", "shorter_side": 320})
    assert FeatureTableConfig.model_validate_json(cropped.canonical) == cropped


def test_filter_characters_change_the_fingerprint_only_if_they_differ_from_the_default():
    keras_default = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'
    course_notebook = '!"#$%&()*+.,-/:;=?@[\\]^_`{|}~ '
    assert parse_filters(keras_default, "keras") is parse_filters(course_notebook, "keras") is None
    changed = TEXT.model_copy(update={"filters": parse_filters("!?", "keras")})
    assert changed.fingerprint != TEXT.fingerprint
    assert CaptionTableConfig.model_validate_json(changed.canonical) == changed


def test_equal_sets_of_filter_characters_are_equal():
    assert parse_filters("?!", "keras") == parse_filters("! ? !", "keras")
    assert parse_filters("e\u0301", "keras") == parse_filters("é", "keras")
    assert parse_filters(" ", "keras") == "<>"


def test_invalid_filters_are_wrong_usage():
    with pytest.raises(UsageError, match=r"--filters: the standardizer alnum has no filter characters"):
        parse_filters("!", "alnum")
    with pytest.raises(UsageError, match=r"--filters: character 1 is not valid Unicode"):
        parse_filters("!\udc80", "keras")
