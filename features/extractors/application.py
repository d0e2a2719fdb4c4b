"""Networks of `keras.applications`: how one is built, what is published of it, and how its pixels are scaled."""

import difflib
import importlib
from dataclasses import dataclass
from typing import Any

from features.extractors.output_layers import FeatureFunction, build_in_thread, summarize_error
from schemas.errors import UsageError


@dataclass(frozen=True)
class PublishedWeights:
    """A published file of ImageNet weights: its name, and the hash that Keras checks it by, where it has one."""

    file: str
    digest: str | None = None

    @property
    def identity(self) -> str:
        """What a recipe records of it."""
        return f"imagenet:{self.digest or self.file}"


@dataclass(frozen=True)
class BuildOptions:
    """What a network is built as.

    Args:
        top: bool. Whether the classifier is part of it.
        height, width: int. Input size in pixels.
    """

    top: bool
    height: int
    width: int


@dataclass(frozen=True)
class Application:
    """A network of `keras.applications`.

    Args:
        name: str. What the command line calls it.
        module: str. Its module within `keras.applications`.
        function: str. Its function within `keras.applications`.
        side: int. Height and width of its own input in pixels.
        smallest: int. Height and width at least.
        layer: str. The layer kept where none is named: the last before global pooling.
        top_layers: tuple of str. The layers that it has with its classifier alone.
        without_top, with_top: Published. The published weights; `{side}` in a file's name is the input size.
        sides: tuple of int. The sizes that weights are published for, where there is more than one.
    """

    name: str
    module: str
    function: str
    side: int
    smallest: int
    layer: str
    top_layers: tuple[str, ...]
    without_top: PublishedWeights
    with_top: PublishedWeights
    sides: tuple[int, ...] = ()

    def form(self, layer: str | None = None, height: int | None = None, width: int | None = None) -> BuildOptions:
        """How the network is built for a layer and an input size, by default its own.

        Raises:
            UsageError: it cannot take this size.
        """
        form = BuildOptions((layer or self.layer) in self.top_layers, height or self.side, width or self.side)
        for option, length in (("--height", form.height), ("--width", form.width)):
            if form.top and length != self.side:
                raise UsageError(
                    f"{layer} is part of {self.name}'s classifier, which takes {self.side} pixels, not {length}",
                    location=option,
                    hint="leave it out, or keep a layer before the classifier",
                )
            if length < self.smallest:
                raise UsageError(f"{self.name} takes {self.smallest} pixels at least, not {length}", location=option)
        return form

    def published(self, form: BuildOptions) -> PublishedWeights:
        """The published weights of a form."""
        published = self.with_top if form.top else self.without_top
        is_own = form.height == form.width and form.height in self.sides
        return PublishedWeights(published.file.format(side=form.height if is_own else self.side), published.digest)

    def build(self, form: BuildOptions, weights: str | None = None) -> Any:
        """The `keras.Model` in a form; `weights` are Keras' own, `imagenet` or none. Its layers' names are stable."""
        from features.runtime.keras_settings import keras

        function = getattr(keras.applications, self.function)
        shape = (form.height, form.width, 3)
        try:
            return build_in_thread(lambda: function(include_top=form.top, weights=weights, input_shape=shape))
        except ValueError as error:
            raise UsageError(
                f"{self.name} cannot be built for {form.height}×{form.width}: {summarize_error(error)}",
                location="--height, --width",
            ) from error

    def preprocess(self) -> FeatureFunction:
        """The network's own scaling of float pixels 0…255."""
        function = importlib.import_module(f"keras.applications.{self.module}").preprocess_input
        return lambda pixels: function(pixels, data_format="channels_last")


def find_application(name: str) -> Application:
    """The network called `name`; UsageError with the nearest names and all there are."""
    from features.extractors.application_table import APPLICATIONS

    if name in APPLICATIONS:
        return APPLICATIONS[name]
    plain = {known.replace("_", ""): known for known in APPLICATIONS}
    near = [plain[one] for one in difflib.get_close_matches(name.lower().replace("_", "").replace("-", ""), plain)]
    others = [known for known in APPLICATIONS if known not in near]
    raise UsageError(
        f"unknown extractor {name!r}",
        location="--extractor",
        hint=f"use one of {', '.join([*near, *others])}, custom:FILE.keras, pixels",
    )
