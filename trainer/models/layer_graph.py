"""Lists the layers of a model with output shapes and weights, and the tensors that flow between them.

A captioner is traced for one time step: the image initializes the state, and the state and a token give the logits of
the next token. The trace computes nothing and works for every batch size.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from features.runtime.keras_settings import keras
from schemas.errors import UsageError
from trainer.models.captioner import Captioner, State

# Operations whose result depends on the size of a tensor, not on its values.
_SIZES = ("Shape", "ShapeN", "Size", "Rank")
# The graph, its input tensors with their names, and its output tensors by name.
_Traced = tuple[Any, list[tuple[str, Any]], dict[str, list[Any]]]


@dataclass(frozen=True)
class LayerInfo:
    """A layer of a model.

    Args:
        name: Name of the layer in the model.
        kind: Name of its class.
        output_shape: Shape of its first output for one image and one token; None if the trace does not call the layer.
        weights: Number of its weights.
        trainable_weights: Number of its weights that training changes.
    """

    name: str
    kind: str
    output_shape: tuple[int | None, ...] | None
    weights: int
    trainable_weights: int


@dataclass(frozen=True)
class LayerGraph:
    """The layers of a model in the order of their computation, and its edges.

    Args:
        layers: All layers, including those without weights.
        inputs: Names of the inputs. The input `state` of a captioner is the state before the token; edges into it come
            from the layers that compute the first state.
        outputs: Names of the outputs; a captioner's new state is the output `new state`.
        edges: Pairs of source and target, by name.
    """

    layers: tuple[LayerInfo, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    edges: tuple[tuple[str, str], ...]


def trace_layers(model: Any, shape: tuple[int, ...]) -> LayerGraph:
    """Traces a built captioner, or a built recognizer, whose input for one image has this shape.

    Raises:
        UsageError: The Keras backend is not TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        message = f"the layers can be traced with TensorFlow only, not with {keras.backend.backend()}"
        raise UsageError(message, location="KERAS_BACKEND", hint="Unset the variable.")
    return _Trace(model).run(shape)


class _Trace:
    """Builds a TensorFlow graph, and records which of its operations each layer of the model created."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers = dict(_name_layers(model.layers))
        self._owners = {id(inner): name for name, layer in self._layers.items() for inner in layer._flatten_layers()}
        self._shapes: dict[str, tuple[int | None, ...]] = {}  # of the called layers, in the order of their first call
        self._layer_of: dict[str, str] = {}  # by name of the operation
        self._sources: dict[str, frozenset[str]] = {}  # layers and inputs, by name of the tensor

    def run(self, shape: tuple[int, ...]) -> LayerGraph:
        trace = self._trace_step if isinstance(self._model, Captioner) else self._trace_call
        graph, inputs, outputs = trace(shape)
        edges = self._find_edges(graph, {tensor.name: name for name, tensor in inputs})
        for name, tensors in outputs.items():
            edges += [(source, name) for tensor in tensors for source in sorted(self._sources[tensor.name])]
        names = tuple(dict.fromkeys(name for name, _ in inputs))
        last = tuple(name for name in outputs if name not in names)
        return LayerGraph(tuple(self._list_layers()), names, last, tuple(dict.fromkeys(edges)))

    def _trace_step(self, shape: tuple[int, ...]) -> _Traced:
        model = self._model
        features, token = _spec((None, *shape), "float32"), _spec((None,), "int32")

        def step(features: Any, token: Any, before: State) -> tuple[Any, State, Any]:
            first = model.init_state(features)
            logits, after, _ = model.step(token, {**first, **before})
            changed = {name: value for name, value in after.items() if value is not first[name]}
            return first, logits, changed

        _, (first, _, changed) = _build_graph(step, features, token, {})
        before = {name: _spec(first[name].shape, first[name].dtype) for name in changed}
        with self._record():
            graph, (first, logits, after) = _build_graph(step, features, token, before)
        given = graph.inputs[: 2 + len(before)]
        names = ["features", "token", *["state"] * len(before)]
        outputs = {"state": [first[name] for name in before]} if before else {}
        after_names = {"new state": list(after.values())} if before else {}
        return graph, list(zip(names, given, strict=True)), {**outputs, "next token": [logits], **after_names}

    def _trace_call(self, shape: tuple[int, ...]) -> _Traced:
        with self._record():
            graph, outputs = _build_graph(self._model.call, _spec((None, *shape), "uint8"))
        logits = {f"{name} logits": [tensor] for name, tensor in outputs.items()}
        return graph, [("images", graph.inputs[0])], logits

    @contextmanager
    def _record(self) -> Iterator[None]:
        """Records the calls of layers inside the context."""
        import tensorflow as tf

        original: Callable[..., Any] = keras.layers.Layer.__call__
        trace = self

        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            graph = tf.compat.v1.get_default_graph()
            first = len(graph.get_operations())
            result = original(layer, *args, **kwargs)
            trace._add(layer, graph.get_operations()[first:], result)
            return result

        keras.layers.Layer.__call__ = call
        try:
            yield
        finally:
            keras.layers.Layer.__call__ = original

    def _add(self, layer: Any, operations: list[Any], result: Any) -> None:
        name = self._owners.get(id(layer))
        if name is None:
            return
        for operation in operations:
            self._layer_of[operation.name] = name
        while isinstance(result, (list, tuple, Mapping)):
            result = next(iter(result.values() if isinstance(result, Mapping) else result))
        self._shapes[name] = tuple(result.shape)

    def _find_edges(self, graph: Any, inputs: Mapping[str, str]) -> list[tuple[str, str]]:
        """Finds the layers and inputs that each tensor is computed from, and returns the edges between them."""
        edges = []
        for operation in graph.get_operations():
            sources = frozenset[str]().union(*(self._sources[tensor.name] for tensor in operation.inputs))
            layer = self._layer_of.get(operation.name)
            if layer is not None:
                edges += [(source, layer) for source in sorted(sources) if source != layer]
                # A layer reads its weights by operations without inputs.
                sources = frozenset((layer,)) if sources else sources
            if operation.type in _SIZES:
                sources = frozenset()
            for tensor in operation.outputs:
                self._sources[tensor.name] = frozenset((inputs[tensor.name],)) if tensor.name in inputs else sources
        return edges

    def _list_layers(self) -> Iterator[LayerInfo]:
        """Yields the layers in the order of their first call, then the others, then the weights outside of layers."""
        for name in dict.fromkeys([*self._shapes, *self._layers]):
            layer = self._layers[name]
            yield LayerInfo(name, type(layer).__name__, self._shapes.get(name), *_count_weights(layer.weights))
        inside = {id(weight) for layer in self._layers.values() for weight in layer.weights}
        if own := [weight for weight in self._model.weights if id(weight) not in inside]:
            yield LayerInfo("other weights", type(self._model).__name__, None, *_count_weights(own))


def _name_layers(layers: Iterable[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the layers by unique names; a `Sequential` is replaced by its layers, which are numbered."""
    used: Counter[str] = Counter()
    for number, layer in enumerate(layers, 1):
        if isinstance(layer, keras.Sequential):
            yield from _name_layers(layer.layers, f"{prefix}{layer.name}_")
            continue
        name = f"{prefix}{number}" if prefix else layer.name
        used[name] += 1
        yield name if used[name] == 1 else f"{name} {used[name]}", layer


def _count_weights(weights: Iterable[Any]) -> tuple[int, int]:
    """Returns the number of all and of the trainable weights. Random states are not weights."""
    sizes = [(math.prod(weight.shape), weight.trainable) for weight in weights]
    return sum(size for size, _ in sizes), sum(size for size, trainable in sizes if trainable)


def _spec(shape: Any, dtype: Any) -> Any:
    import tensorflow as tf

    return tf.TensorSpec(shape, dtype)


def _build_graph(function: Callable[..., Any], *specs: Any) -> tuple[Any, Any]:
    """Returns the graph of a function, and the function's results inside the graph."""
    import tensorflow as tf

    results: list[Any] = []

    def build(*inputs: Any) -> Any:
        results.append(function(*inputs))
        return []

    graph = tf.function(build, autograph=False).get_concrete_function(*specs).graph
    return graph, results[0]
