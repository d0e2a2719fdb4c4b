"""Describes the models of `keras.applications`: input size, layers, published weights and input preprocessing.

`keras_applications.csv` lists the models. Keras checks a download by the digest in the list: MD5, or
SHA-256 for ConvNeXt. Keras has no digest for MobileNet and MobileNetV2. The tests compare each row with Keras.
"""

import csv
import difflib
import importlib
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

from features.extractors.output_layers import FeatureFunction, build_in_thread, summarize_error
from schemas.errors import UsageError


@dataclass(frozen=True)
class PublishedWeights:
    """A published file of ImageNet weights, and the digest that Keras checks it by, if any."""

    file: str
    digest: str | None


@dataclass(frozen=True)
class BuildOptions:
    """Input size in pixels, and whether the classifier is included."""

    top: bool
    height: int
    width: int


@dataclass(frozen=True)
class Application:
    """A model of `keras.applications`, by its name on the command line."""

    name: str
    module: str  # within `keras.applications`; contains `function`
    function: str
    side: int  # default height and width of the input in pixels
    min_side: int
    layer: str  # default output layer: the last one before global pooling
    top_layers: tuple[str, ...]  # layers that only the model with its classifier has
    without_top: PublishedWeights  # without the classifier; `{side}` in the file name is the input size
    with_top: PublishedWeights
    sides: tuple[int, ...]  # input sizes with weights of their own, if there are several

    def resolve_build_options(
        self, layer: str | None = None, height: int | None = None, width: int | None = None
    ) -> BuildOptions:
        """Returns the build options for an output layer and an input size; None is the default."""
        options = BuildOptions((layer or self.layer) in self.top_layers, height or self.side, width or self.side)
        for option, length in (("--height", options.height), ("--width", options.width)):
            if options.top and length != self.side:
                message = (
                    f"{layer} is part of {self.name}'s classifier, which requires {self.side} pixels, not {length}"
                )
                hint = "Omit the option, or choose a layer before the classifier."
                raise UsageError(message, location=option, hint=hint)
            if length < self.min_side:
                raise UsageError(f"{self.name} requires at least {self.min_side} pixels, not {length}", location=option)
        return options

    def find_published_weights(self, options: BuildOptions) -> PublishedWeights:
        """Returns the published weights for these build options."""
        published = self.with_top if options.top else self.without_top
        has_own_weights = options.height == options.width and options.height in self.sides
        return replace(published, file=published.file.format(side=options.height if has_own_weights else self.side))

    def build(self, options: BuildOptions, weights: str | None = None) -> Any:
        """Builds the `keras.Model` with `imagenet` or random weights. Its layer names are the same in every process."""
        from features.runtime.keras_settings import keras

        function = getattr(keras.applications, self.function)
        shape = (options.height, options.width, 3)
        try:
            return build_in_thread(lambda: function(include_top=options.top, weights=weights, input_shape=shape))
        except ValueError as error:
            size = f"{options.height}×{options.width}"
            message = f"{self.name} cannot be built for {size}: {summarize_error(error)}"
            raise UsageError(message, location="--height, --width") from error

    def load_preprocessing(self) -> FeatureFunction:
        """Returns the model's own input preprocessing of float pixels 0…255."""
        function = importlib.import_module(f"keras.applications.{self.module}").preprocess_input
        return lambda pixels: function(pixels, data_format="channels_last")

    def load_file(self, model: Any, path: str) -> None:
        """Loads the weights of a file; OSError, ValueError or KeyError if they do not fit the model."""
        model.load_weights(path)


APPLICATIONS = {
    row["name"]: Application(
        name=row["name"],
        module=row["module"],
        function=row["function"],
        side=int(row["side"]),
        min_side=int(row["min_side"]),
        layer=row["layer"],
        top_layers=tuple(row["top_layers"].split()),
        without_top=PublishedWeights(row["file_without_top"], row["digest_without_top"] or None),
        with_top=PublishedWeights(row["file_with_top"], row["digest_with_top"] or None),
        sides=tuple(map(int, row["sides"].split())),
    )
    for row in csv.DictReader(
        files(__package__).joinpath("keras_applications.csv").read_text(encoding="ascii").splitlines()
    )
}


def find_application(name: str) -> Application:
    """Returns the application with this name.

    Raises:
        UsageError: The name is unknown. The hint lists all names, the most similar ones first.
    """
    if name in APPLICATIONS:
        return APPLICATIONS[name]
    plain = {known.replace("_", ""): known for known in APPLICATIONS}
    near = [plain[one] for one in difflib.get_close_matches(name.lower().replace("_", "").replace("-", ""), plain)]
    others = [known for known in APPLICATIONS if known not in near]
    others += ["alexnet", "scene_network", "custom:FILE.keras", "keras_hub:PRESET", "pixels"]
    hint = f"Use one of {', '.join([*near, *others])}."
    raise UsageError(f"unknown extractor {name!r}", location="--extractor", hint=hint)
