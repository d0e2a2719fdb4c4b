"""Loads captioners and recognizers from a user's Python file, by the SHA-256 of the file.

`--model FILE.py:Class` reads the file once. The code that runs is the code that was hashed: a run directory has a copy,
and no other file is ever executed in its place.
"""

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from features.io.locations import local_path
from schemas.errors import CaptError, CorruptFileError, UsageError
from trainer.models.configs import ModelConfig, RecognizerConfig

if TYPE_CHECKING:
    from trainer.models.captioner import Captioner
    from trainer.models.recognizer import Recognizer

MODEL_FILE = "model.py"
SUFFIX = ".py"

_MODULE_PREFIX = "capt_model_"
_TOLERANCE = 1e-3
_MAX_MESSAGE = 300
# The text of every file that was read, by its SHA-256.
_files: dict[str, bytes] = {}


@dataclass(frozen=True)
class CustomModel:
    """A class in a user's file.

    Args:
        name: `FILE.py:Class`, without the directory.
        sha256: SHA-256 of the file.
    """

    name: str
    sha256: str

    @property
    def code(self) -> bytes:
        """The text of the file."""
        return _files[self.sha256]

    def load(self) -> Any:
        """Runs the file, once per process, and returns the class.

        Raises:
            UsageError: The class does not exist, or is neither a captioner nor a recognizer.
            CaptError: The file cannot be run.
        """
        from trainer.models.captioner import Captioner
        from trainer.models.recognizer import Recognizer

        module, (file, _, class_name) = self._run(), self.name.rpartition(":")
        found = getattr(module, class_name, None)
        bases = {Captioner: ModelConfig, Recognizer: RecognizerConfig}
        for base, config in bases.items():
            if isinstance(found, type) and issubclass(found, base):
                if not issubclass(getattr(found, "config_class", object), config):
                    message = f"config_class of {class_name} is not a subclass of {config.__name__}"
                    raise UsageError(message, location=file)
                return found
        names = [
            name for name, one in vars(module).items() if isinstance(one, type) and one.__module__ == module.__name__
        ]
        hint = f"The classes of the file are {', '.join(names)}." if names else "The file has no classes."
        message = f"{class_name} is not a subclass of Captioner or Recognizer" if found else f"no class {class_name!r}"
        raise UsageError(message, location=file, hint=hint)

    @property
    def is_captioner(self) -> bool:
        """Whether the class is a captioner; otherwise it is a recognizer."""
        from trainer.models.captioner import Captioner

        return issubclass(self.load(), Captioner)

    def _run(self) -> ModuleType:
        name = f"{_MODULE_PREFIX}{self.sha256}"
        if name in sys.modules:
            return sys.modules[name]
        file = self.name.rpartition(":")[0]
        module = ModuleType(name)
        sys.modules[name] = module  # pydantic resolves the annotations of a class in its module
        try:
            exec(compile(self.code, file, "exec"), vars(module))
        except (Exception, SystemExit) as error:  # The file is the user's: any error is possible.
            del sys.modules[name]
            message, location = _describe(error, file)
            raise CaptError(message, location=location, hint="Correct the file.") from error
        return module


def is_custom(model: str) -> bool:
    """Returns whether a model is `FILE.py:Class` instead of a registered name."""
    return model.rpartition(":")[0].endswith(SUFFIX)


def read_custom_model(reference: str) -> CustomModel:
    """Reads the file of `FILE.py:Class` without running it; UsageError if it does not exist."""
    file, _, class_name = reference.rpartition(":")
    path = local_path(file, "--model")
    try:
        code = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise UsageError(f"the file {path} does not exist", location="--model") from None
    return _register(f"{path.name}:{class_name}", code)


def read_copy(root: Path, name: str, sha256: str) -> None:
    """Reads the copy of a model's file in a run directory, without running it.

    Raises:
        CorruptFileError: The file is missing, or is not the file that the run was trained with.
    """
    path = root / MODEL_FILE
    try:
        code = path.read_bytes()
    except FileNotFoundError:
        raise CorruptFileError("the file of the model is missing", location=str(path)) from None
    if _register(name, code).sha256 != sha256:
        message = "the file was changed after training, so it is not run"
        raise CorruptFileError(message, location=str(path), hint=f"Restore the file with SHA-256 {sha256}.")


def check_captioner(model: "Captioner", name: str, shape: tuple[int, ...]) -> None:
    """Raises UsageError if a captioner fails for features of this shape, or if `call` and `step` do not agree."""
    import numpy as np

    from features.runtime.keras_settings import ops
    from schemas.table_config import START

    features = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    tokens = np.array([[START, 3, 1], [START, 1, 3]], np.int32)
    with locate_errors(name):
        whole = np.asarray(ops.convert_to_numpy(model({"features": features, "tokens": tokens})), np.float32)
        state, steps = model.init_state(features), []
        for number in range(tokens.shape[1]):
            logits, state, _ = model.step(tokens[:, number], state)
            steps.append(np.asarray(ops.convert_to_numpy(logits), np.float32))
    expected = (*tokens.shape, model.vocabulary)
    if whole.shape != expected or any(one.shape != expected[::2] for one in steps):
        found = f"{list(whole.shape)} and {list(steps[0].shape)}"
        message = f"call and step return logits of shapes {found}, not {list(expected)} and {list(expected[::2])}"
        raise UsageError(message, location=name)
    difference = float(np.abs(whole - np.stack(steps, axis=1)).max())
    # Also a NaN is refused.
    if not difference <= _TOLERANCE * max(1.0, float(np.abs(whole).max())):
        message = f"call and step return different logits for the same tokens: they differ by up to {difference:.3g}"
        raise UsageError(message, location=name, hint="Compute both from the same layers, without dropout.")


def check_training_without_targets(model: "Captioner", name: str, shape: tuple[int, ...]) -> None:
    """Raises UsageError if `call` of a captioner fails in training without targets, as with `objective: cider_d`."""
    import numpy as np

    from schemas.table_config import START

    inputs = {"features": np.zeros((1, *shape), np.float32), "tokens": np.array([[START, 3]], np.int32)}
    with locate_errors(name):
        model(inputs, training=True)


def check_recognizer(model: "Recognizer", name: str, shape: tuple[int, ...]) -> None:
    """Raises UsageError if a recognizer fails for images of this shape, or does not return the logits of every head."""
    import numpy as np

    classes = model.num_classes
    with locate_errors(name):
        outputs = model(np.zeros((2, *shape), np.uint8))
    expected = ("ctc", "attention", "cells") if model.config.reads_words else ("ctc", "cells")
    if not isinstance(outputs, dict) or outputs.keys() != set(expected):
        found = ", ".join(map(str, outputs)) if isinstance(outputs, dict) else type(outputs).__name__
        required = " and ".join((", ".join(expected[:-1]), expected[-1]))
        raise UsageError(f"call must return {required}, but it returns {found}", location=name)
    for head, logits in outputs.items():
        if len(logits.shape) != 3 or logits.shape[-1] != classes:
            message = f"{head} must have the shape [images, positions, {classes}], not {list(logits.shape)}"
            raise UsageError(message, location=name)


@contextmanager
def locate_errors(name: str) -> Iterator[None]:
    """Raises an error of the model `FILE.py:Class` as UsageError that names the line of the file."""
    try:
        yield
    except CaptError:
        raise
    except (Exception, SystemExit) as error:  # The model is the user's: any error is possible.
        message, location = _describe(error, name.rpartition(":")[0])
        hint = "Correct the model."
        if isinstance(error, KeyError) and "targets" in str(error):
            message = 'call reads inputs["targets"], which is absent in decoding and with `objective: cider_d`'
            hint = 'Read it only if "targets" is in inputs.'
        raise UsageError(message, location=location, hint=hint) from error


def _describe(error: BaseException, file: str) -> tuple[str, str]:
    """Returns the message of an error, and its line in the file."""
    message = f"{type(error).__name__}: {' '.join(str(error).split())[:_MAX_MESSAGE]}"
    return message, f"{file}{_find_line(error, file)}"


def _register(name: str, code: bytes) -> CustomModel:
    sha256 = hashlib.sha256(code).hexdigest()
    _files[sha256] = code
    return CustomModel(name, sha256)


def _find_line(error: BaseException, file: str) -> str:
    """Returns `:LINE` of the last line of a file that raised an error; empty if there is none."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f":{error.lineno}"
    traceback, line = error.__traceback__, ""
    while traceback:
        if traceback.tb_frame.f_code.co_filename == file:
            line = f":{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return line
