"""Declares the options of `capt models`."""

from typing import Annotated

from schemas.options.base import Argument, Options
from schemas.options.shared import ModelName, StoreArgument


class ModelsLs(Options):
    """List the models of a store and their champions."""

    store: StoreArgument


class ModelsShow(Options):
    """Show every decision about a model, with the reasons."""

    store: StoreArgument
    model_name: ModelName = None


class ModelsPromote(Options):
    """Make a run the champion, regardless of earlier decisions."""

    store: StoreArgument
    run: Annotated[
        str,
        Argument("Run of the model, by name or the beginning of its name. `capt models show` lists the runs.", "RUN"),
    ]
    model_name: ModelName = None


class ModelsRollback(Options):
    """Make the previous champion the champion again. The last five champions are kept."""

    store: StoreArgument
    model_name: ModelName = None
