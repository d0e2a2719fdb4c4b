"""Networks: extractors frozen to one graph each, so that a row's bits depend on its image alone.

A Keras model, its preprocessing and its weights become one TensorFlow graph without variables. The graph is kept by
digest; workers load it without Keras. bfloat16 is a setting of the session that runs the graph, not of the process.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from features.images.resize import Pixels
from features.runtime.numerics import (
    Device,
    DeviceKind,
    detect_cpu,
    read_cpu_flags,
    resolve_onednn_precision,
    resolve_tensorflow_class,
)
from schemas.choices import Precision
from schemas.errors import CorruptFileError, UsageError

INPUT = "pixels"
OUTPUT = "features"

_sharing = threading.Lock()


class ExtractorModel(Protocol):
    """Anything that turns pixels into features."""

    def predict(self, pixels: Pixels) -> NDArray[np.float32]:
        """Features float32 [N, ...] of pixels [N, H, W, 3], of the dtype that the network was made for."""


class FrozenGraph:
    """A frozen graph in a session of its own.

    Args:
        graph: bytes. A serialized GraphDef with placeholder `pixels` and result `features`.
        precision: str. `bfloat16` computes convolutions and products in bfloat16, input and output stay float32. A
            processor that cannot do so computes in float32, and the numerics class says so.

    Attributes:
        shape: Shape of the features of one image.
    """

    def __init__(self, graph: bytes, precision: Precision) -> None:
        import tensorflow as tf

        definition = tf.compat.v1.GraphDef.FromString(graph)
        config = tf.compat.v1.ConfigProto()
        if resolve_onednn_precision(precision, read_cpu_flags()) == "bfloat16":
            config.graph_options.rewrite_options.auto_mixed_precision_onednn_bfloat16 = 1
        loaded = tf.Graph()
        with loaded.as_default():
            tf.import_graph_def(definition, name="")
        self._session = tf.compat.v1.Session(graph=loaded, config=config)
        self._call = self._session.make_callable(f"{OUTPUT}:0", [f"{INPUT}:0"])
        self.shape: tuple[int, ...] = tuple(loaded.get_tensor_by_name(f"{OUTPUT}:0").shape[1:])
        self._precision: Precision = precision

    @property
    def numerics(self) -> str:
        """Numerics class of the features."""
        return detect_numerics_class(self._precision)

    def predict(self, pixels: Pixels) -> NDArray[np.float32]:
        """Features float32 [N, ...] of pixels [N, H, W, 3], of the dtype that the graph was frozen for."""
        features: NDArray[np.float32] = self._call(pixels)
        return features


def detect_numerics_class(precision: Precision) -> str:
    """Returns the numerics class of what a frozen network computes in this process."""
    from tensorflow.python.framework.test_util import IsMklEnabled

    return resolve_tensorflow_class(
        list_devices(), IsMklEnabled(), resolve_onednn_precision(precision, read_cpu_flags())
    )


def list_devices() -> list[Device]:
    """Returns the devices that TensorFlow computes on in this process. The processor is the last one."""
    import tensorflow as tf

    accelerators = [device for kind in ("GPU", "TPU") for device in tf.config.list_physical_devices(kind)]
    has_tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    described = [(one.device_type, tf.config.experimental.get_device_details(one)) for one in accelerators]
    return [*(describe_accelerator(kind, details, has_tf32) for kind, details in described), detect_cpu()]


def describe_accelerator(device_type: str, details: Mapping[str, Any], may_use_tf32: bool) -> Device:
    """Returns an accelerator that TensorFlow describes.

    Args:
        device_type: `GPU` or `TPU`.
        details: Name of the chip and its compute capability, if TensorFlow knows them.
        may_use_tf32: Whether TensorFlow may compute in TF32. A GPU has it from compute capability 8.0.
    """
    kind: DeviceKind = "gpu" if device_type == "GPU" else "tpu"
    capability = details.get("compute_capability")
    chip = str(details.get("device_name", "unknown"))
    version = f" ({'.'.join(map(str, capability))})" if capability else ""
    return Device(kind, f"{chip}{version}", may_use_tf32 and capability is not None and capability >= (8, 0))


def load_extractor_model(path: Path, precision: Precision) -> FrozenGraph:
    """The network frozen at `path`; CorruptFileError where the file is none."""
    from google.protobuf.message import DecodeError

    try:
        return FrozenGraph(path.read_bytes(), precision)
    except FileNotFoundError:
        raise CorruptFileError("the frozen network is missing", location=str(path)) from None
    except DecodeError as error:
        raise CorruptFileError("the frozen network is damaged", location=str(path)) from error


def load_shared_extractor_model(path: Path, precision: Precision) -> FrozenGraph:
    """The network at `path`, loaded once a process and shared by its threads."""
    with _sharing:
        return _last_network(path, precision)


@lru_cache(maxsize=1)
def _last_network(path: Path, precision: Precision) -> FrozenGraph:
    return load_extractor_model(path, precision)


def freeze(
    features: Callable[[Any], Any], height: int, width: int, dtype: Literal["uint8", "float32"] = "uint8"
) -> bytes:
    """The graph of a feature function, as bytes that are the same at every build.

    Args:
        features: function from pixels [N, height, width, 3] to float32 features [N, ...].
        height: int. Input height in pixels.
        width: int. Input width in pixels.
        dtype: str. Of the pixels, as `features.images.resizer.Resizer.dtype` has it.

    Raises:
        UsageError: the network has a loop.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    def named(pixels: Any) -> Any:
        return features(pixels)

    spec = tf.TensorSpec((None, height, width, 3), dtype, name=INPUT)
    frozen = convert_variables_to_constants_v2(tf.function(named).get_concrete_function(spec))
    return _canonical(frozen.graph.as_graph_def(), frozen.inputs[0].op.name, frozen.outputs[0])


def _canonical(definition: Any, source: str, result: Any) -> bytes:
    """The graph with nodes ordered and named by how the result reaches them.

    Keras numbers layers by how many a process has built, so the names and the order they sort in differ from build to
    build; what computes what does not. Control edges order side effects, of which a frozen graph has none.
    """
    nodes = {node.name: node for node in definition.node}
    if definition.library.function:
        raise UsageError(
            "the network calls a compiled function, such as a grouped convolution's, and cannot be frozen",
            location="--extractor",
            hint="keep a layer before it",
        )
    if any(node.op == "NextIteration" for node in definition.node):
        raise UsageError(
            "the network has a loop, such as a recurrent layer's, and cannot be frozen",
            location="--extractor",
            hint="keep a layer before it, or save the network with that layer's unroll=True",
        )
    names: dict[str, str] = {}
    canonical = type(definition)(versions=definition.versions)
    for node in _inputs_first(nodes, result.op.name):
        names[node.name] = INPUT if node.name == source else f"n{len(names)}"
        copy = canonical.node.add()
        copy.CopyFrom(node)
        copy.name = names[node.name]
        copy.ClearField("input")
        # Names a gradient, which nothing here takes, by a number that grows within the process.
        copy.attr.pop("_gradient_op_type", None)
        copy.input.extend(_renamed(tensor, names) for tensor in _data_inputs(node))
        copy.ClearField("experimental_debug_info")
    identity = canonical.node.add(name=OUTPUT, op="Identity", input=[_renamed(result.name, names)])
    identity.attr["T"].type = result.dtype.as_datatype_enum
    data: bytes = canonical.SerializeToString(deterministic=True)
    return data


def _inputs_first(nodes: dict[str, Any], last: str) -> Iterator[Any]:
    seen: set[str] = set()
    stack = [(last, False)]
    while stack:
        name, ready = stack.pop()
        if ready:
            yield nodes[name]
        elif name not in seen:
            seen.add(name)
            stack.append((name, True))
            stack.extend((_node_of(tensor), False) for tensor in reversed(_data_inputs(nodes[name])))


def _data_inputs(node: Any) -> list[str]:
    return [tensor for tensor in node.input if not tensor.startswith("^")]


def _node_of(tensor: str) -> str:
    return tensor.partition(":")[0]


def _renamed(tensor: str, names: dict[str, str]) -> str:
    port = tensor.partition(":")[2]
    return names[_node_of(tensor)] + (f":{port}" if port not in ("", "0") else "")
