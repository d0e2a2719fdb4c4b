"""Freezes extractors into TensorFlow graphs and runs them, so that a row's bits depend only on its image.

A frozen graph contains the input preprocessing, the model and its weights as constants. It is stored by digest and
loaded without Keras. bfloat16 is a setting of the session that runs the graph, not of the process.
"""

import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from features.images.resize import Pixels
from features.runtime.fixed_execution import count_parallel_calls, find_fixed_execution
from features.runtime.numerics import (
    detect_cpu,
    read_cpu_flags,
    resolve_frozen_runtime,
    resolve_onednn_precision,
)
from schemas.choices import Precision
from schemas.default_backend import is_installed
from schemas.errors import CorruptFileError, UsageError

INPUT = "pixels"
OUTPUT = "features"

_sharing = threading.Lock()


class FrozenGraph:
    """A frozen graph in a session of its own, on the processor. `shape` is that of one image's features.

    Args:
        graph: A serialized GraphDef with placeholder `pixels` and result `features`.
        precision: `bfloat16` computes convolutions and products in bfloat16; input and output stay float32. A processor
            without bfloat16 computes in float32, and the numerics class records float32.

    A processor without AVX-512 computes batches of one size only, so smaller ones are padded, with a fixed number of
    threads. `parallel_calls` forward passes at once, each with threads of its own, use more cores.
    """

    def __init__(self, graph: bytes, precision: Precision) -> None:
        import tensorflow as tf

        definition = tf.compat.v1.GraphDef.FromString(graph)
        config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})
        execution = find_fixed_execution(read_cpu_flags())
        if execution:
            config.intra_op_parallelism_threads = execution.threads
        if resolve_onednn_precision(precision, read_cpu_flags()) == "bfloat16":
            config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 = 1
        loaded = tf.Graph()
        with loaded.as_default():
            tf.import_graph_def(definition, name="")
        self.parallel_calls = count_parallel_calls(execution)
        sessions = [tf.compat.v1.Session(graph=loaded, config=config) for _ in range(self.parallel_calls)]
        self._calls = cycle([session.make_callable(f"{OUTPUT}:0", [f"{INPUT}:0"]) for session in sessions])
        self.shape: tuple[int, ...] = tuple(loaded.get_tensor_by_name(f"{OUTPUT}:0").shape[1:])
        self._precision: Precision = precision
        self.device = detect_cpu()
        self._batch_size = execution.batch_size if execution else None

    @property
    def numerics(self) -> str:
        """Numerics class of the features."""
        return detect_numerics_class(self._precision)

    def predict(self, pixels: Pixels) -> NDArray[np.float32]:
        """Returns features float32 [N, ...] of pixels [N, H, W, 3], of the dtype that the graph was frozen for."""
        size, call = self._batch_size, next(self._calls)
        if size is None:
            features: NDArray[np.float32] = call(pixels)
            return features
        padding = np.zeros((-len(pixels) % size, *pixels.shape[1:]), pixels.dtype)
        padded = np.concatenate([pixels, padding]) if len(padding) else pixels
        batches = [call(padded[start : start + size]) for start in range(0, len(padded), size)]
        return np.concatenate(batches)[: len(pixels)]


def detect_numerics_class(precision: Precision) -> str:
    """Returns the numerics class of frozen graphs in this process."""
    from tensorflow.python.framework.test_util import IsMklEnabled

    effective = resolve_onednn_precision(precision, read_cpu_flags())
    return resolve_frozen_runtime(detect_cpu(), IsMklEnabled(), effective).numerics


def load_frozen_graph(path: Path, precision: Precision) -> FrozenGraph:
    """Loads a frozen graph from a file.

    Raises:
        CorruptFileError: The file is missing, or not a graph.
        UsageError: TensorFlow is not installed.
    """
    if not is_installed("tensorflow"):
        message = "the extractor is a frozen graph, and the package 'tensorflow' is not installed"
        raise UsageError(message, location=str(path), hint="Install TensorFlow.")
    from google.protobuf.message import DecodeError

    try:
        return FrozenGraph(path.read_bytes(), precision)
    except FileNotFoundError:
        raise CorruptFileError("the frozen graph is missing", location=str(path)) from None
    except DecodeError as error:
        raise CorruptFileError("the frozen graph is corrupt", location=str(path)) from error


def load_shared_frozen_graph(path: Path, precision: Precision) -> FrozenGraph:
    """Loads a frozen graph once per process; threads share it."""
    with _sharing:
        return _load_last(path, precision)


_load_last = lru_cache(maxsize=1)(load_frozen_graph)


def freeze(
    function: Callable[[Any], Any], height: int, width: int, dtype: Literal["uint8", "float32"] = "uint8"
) -> bytes:
    """Serializes a function from pixels [N, height, width, 3] of `dtype` to float32 features [N, ...].

    Each build of the function produces the same bytes.

    Raises:
        UsageError: The function contains a loop or a compiled function.
    """
    import tensorflow as tf

    def named(pixels: Any) -> Any:
        return function(pixels)

    spec = tf.TensorSpec((None, height, width, 3), dtype, name=INPUT)
    traced = tf.function(named).get_concrete_function(spec)
    return _serialize(_replace_variables(traced), traced.inputs[0].op.name, traced.outputs[0])


def _replace_variables(traced: Any) -> Any:
    """Returns the GraphDef of a concrete function, its calls inlined and its variables replaced by constants.

    `convert_variables_to_constants_v2` does the same, and then takes longer to build a function from the GraphDef.
    """
    from tensorflow.python.framework import convert_to_constants

    data = convert_to_constants._FunctionConverterDataInEager(
        traced, lower_control_flow=True, aggressive_inlining=False
    )
    return convert_to_constants._replace_variables_by_constants(data)[0]


def _serialize(definition: Any, source: str, result: Any) -> bytes:
    """Serializes a graph whose nodes are sorted and named by the path to the result.

    Keras numbers layers per process, so node names and their order differ between builds of the same computation.
    Control edges are dropped: they order side effects, which a frozen graph does not have.
    """
    nodes = [*_sort_by_dependency({node.name: node for node in definition.node}, result.op.name)]
    functions = {function.signature.name for function in definition.library.function}
    if any(node.op in functions or any(map(_is_function, node.attr.values())) for node in nodes):
        message = "the model contains a compiled function, such as a grouped convolution, and cannot be frozen"
        raise UsageError(message, location="--extractor", hint="Choose a layer before it.")
    if any(node.op == "NextIteration" for node in nodes):
        message = "the model contains a loop, such as a recurrent layer, and cannot be frozen"
        hint = "Choose a layer before it, or save the model with unroll=True in that layer."
        raise UsageError(message, location="--extractor", hint=hint)
    names: dict[str, str] = {}

    def rename(tensor: str) -> str:
        name, _, port = tensor.partition(":")
        return names[name] + (f":{port}" if port not in ("", "0") else "")

    canonical = type(definition)(versions=definition.versions)
    for node in nodes:
        names[node.name] = INPUT if node.name == source else f"n{len(names)}"
        copy = canonical.node.add()
        copy.CopyFrom(node)
        copy.name = names[node.name]
        copy.ClearField("input")
        # Notes on gradients, users' names and control edges. Some contain a counter of the process.
        for attribute in [name for name in copy.attr if name.startswith("_")]:
            del copy.attr[attribute]
        copy.input.extend(map(rename, _list_data_inputs(node)))
        copy.ClearField("experimental_debug_info")
    identity = canonical.node.add(name=OUTPUT, op="Identity", input=[rename(result.name)])
    identity.attr["T"].type = result.dtype.as_datatype_enum
    data: bytes = canonical.SerializeToString(deterministic=True)
    return data


def _is_function(attribute: Any) -> bool:
    return attribute.HasField("func") or len(attribute.list.func) > 0


def _sort_by_dependency(nodes: dict[str, Any], last: str) -> Iterator[Any]:
    seen: set[str] = set()
    stack = [(last, False)]
    while stack:
        name, is_ready = stack.pop()
        if is_ready:
            yield nodes[name]
        elif name not in seen:
            seen.add(name)
            stack.append((name, True))
            stack.extend((tensor.partition(":")[0], False) for tensor in reversed(_list_data_inputs(nodes[name])))


def _list_data_inputs(node: Any) -> list[str]:
    return [tensor for tensor in node.input if not tensor.startswith("^")]
