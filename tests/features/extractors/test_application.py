"""The list of applications agrees with the installed Keras."""

import importlib
import inspect
from pathlib import Path
from typing import Any

import keras
import pytest

from features.extractors.application import APPLICATIONS, Application, BuildOptions, find_application
from features.extractors.output_layers import OUTPUT, truncate_model
from features.extractors.weights import identify_weights
from schemas.errors import UsageError

# The smallest application of each family.
SLOW = (
    *("mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "inception_v3", "inception_resnet_v2", "xception"),
    *("resnet50", "resnet50_v2", "densenet121", "nasnet_mobile", "efficientnet_b0", "efficientnet_v2_b0"),
    *("convnext_tiny", "vgg16", "vgg19"),
)
every_application = pytest.mark.parametrize(
    "name", ["mobilenet", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)


class DownloadError(Exception):
    """Keras requested a published file."""


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """Names and digests of the files that Keras requests; none is downloaded."""
    seen: list[tuple[str, str | None]] = []

    def refuse(fname: str, *_: Any, file_hash: str | None = None, **__: Any) -> None:
        seen.append((fname, file_hash))
        raise DownloadError

    monkeypatch.setattr(importlib.import_module("keras.src.utils.file_utils"), "get_file", refuse)
    return seen


def list_functions() -> set[str]:
    """Names of the functions that `keras.applications` exports."""
    found = vars(keras.applications).items()
    return {name for name, value in found if inspect.isfunction(value)}


def read_source(network: Application) -> str:
    """Source of an application's module, and of the module that it imports."""
    module = inspect.getmodule(inspect.unwrap(getattr(keras.applications, network.function)))
    assert module is not None
    text = Path(inspect.getsourcefile(module) or "").read_text()
    shared = Path(inspect.getsourcefile(module) or "").with_name("resnet.py")
    return text + (shared.read_text() if network.module == "resnet_v2" else "")


def test_every_application_of_keras_is_there_once() -> None:
    assert sorted(network.function for network in APPLICATIONS.values()) == sorted(list_functions())


@pytest.mark.parametrize("name", APPLICATIONS)
def test_digests_and_preprocessing_are_those_of_the_module(name: str) -> None:
    network = find_application(name)
    text = read_source(network)
    for published in (network.without_top, network.with_top):
        assert published.digest is None or published.digest in text
    assert (network.without_top.digest is None) == (network.module in ("mobilenet", "mobilenet_v2"))
    module = importlib.import_module(f"keras.applications.{network.module}")
    assert callable(module.preprocess_input)


@every_application
def test_sizes_layers_and_files_are_those_of_keras(name: str, downloads: list[tuple[str, str | None]]) -> None:
    network = find_application(name)
    all_options = [BuildOptions(top, network.side, network.side) for top in (False, True)]
    for options in all_options:
        with pytest.raises(DownloadError):
            network.build(options, "imagenet")
    assert downloads == [(p.file, p.digest) for p in map(network.find_published_weights, all_options)]
    plain, whole = map(network.build, all_options)
    layers = [[layer.name for layer in model.layers] for model in (plain, whole)]
    assert [one for one in layers[1] if one not in layers[0]] == [*network.top_layers]
    assert network.layer == OUTPUT or network.layer in layers[0]
    default = getattr(keras.applications, network.function)(weights=None)
    assert default.input_shape in ((None, network.side, network.side, 3), (None, None, None, 3))
    with pytest.raises(UsageError, match="at least"):
        network.resolve_build_options(None, network.min_side - 1, None)
    with pytest.raises(ValueError, match="at least"):
        getattr(keras.applications, network.function)(
            weights=None, include_top=False, input_shape=(network.min_side - 1, network.min_side, 3)
        )
    network.build(network.resolve_build_options(None, network.min_side, network.min_side))


@pytest.mark.parametrize(
    ("name", "side", "shape"),
    [
        ("inception_v3", 299, (8, 8, 2048)),
        ("mobilenet_v3_small", 224, (7, 7, 576)),
        pytest.param("vgg16", 224, (14, 14, 512), marks=pytest.mark.slow),
        pytest.param("inception_resnet_v2", 299, (8, 8, 1536), marks=pytest.mark.slow),
    ],
)
def test_the_last_feature_map_has_its_published_size(name: str, side: int, shape: tuple[int, ...]) -> None:
    network = find_application(name)
    options = network.resolve_build_options()
    assert (options.height, options.width) == (side, side)
    assert truncate_model(network.build(options), network.layer, name).output.shape[1:] == shape


@pytest.mark.filterwarnings("ignore:`input_shape` is undefined")
@pytest.mark.parametrize("name", ["mobilenet", pytest.param("mobilenet_v2", marks=pytest.mark.slow)])
def test_an_application_with_several_input_sizes_has_one_file_per_size(
    name: str, downloads: list[tuple[str, str | None]]
) -> None:
    network = find_application(name)
    for height, width in ((160, 160), (160, 192), (100, 100)):
        options = network.resolve_build_options(None, height, width)
        with pytest.raises(DownloadError):
            network.build(options, "imagenet")
        assert downloads[-1] == (network.find_published_weights(options).file, None)
        assert identify_weights("imagenet", network, options) == f"imagenet:{downloads[-1][0]}"


def test_the_classifier_has_its_own_weights() -> None:
    network = find_application("vgg16")
    assert (
        identify_weights("imagenet", network, network.resolve_build_options())
        == "imagenet:6d6bbae143d832006294945121d1f1fc"
    )
    assert (
        identify_weights("imagenet", network, network.resolve_build_options("fc2"))
        == "imagenet:64373286793e3c8b2b4e3219cbf3544b"
    )
    with pytest.raises(UsageError, match="classifier"):
        network.resolve_build_options("fc2", 225)


@pytest.mark.parametrize(
    ("name", "near"), [("vgg", "se one of vgg"), ("EfficientNetB0", "se one of efficientnet_b0"), ("x", "xception")]
)
def test_an_unknown_extractor_lists_all_names_most_similar_first(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=near) as raised:
        find_application(name)
    assert all(known in str(raised.value) for known in (*APPLICATIONS, "pixels", "custom:FILE.keras"))
