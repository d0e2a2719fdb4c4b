"""Draws the layers of a model as boxes, and the tensors between them as arrows."""

from collections import Counter
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from matplotlib.figure import Figure

from trainer.models.layer_graph import LayerGraph, LayerInfo

_BOX = (2.1, 0.62)  # inches
_GAP = (0.35, 0.5)
_INPUT, _LAYER, _OUTPUT = "#dcecf7", "#f4f4f4", "#e2f2e0"
_STATE = "state"


def layer_figure(graph: LayerGraph, title: str) -> Figure:
    """Draws a graph from its inputs, at the top, to its outputs. Layers that compute nothing are left out."""
    labels = {name: name for name in (*graph.inputs, *graph.outputs)}
    ends = {name for edge in graph.edges for name in edge}
    labels |= {layer.name: _label(layer) for layer in graph.layers if layer.name in ends}
    places = _arrange(graph, labels)
    width = 1 + max(column for column, _ in places.values())
    height = 1 + max(row for _, row in places.values())
    size = (width * (_BOX[0] + _GAP[0]) + _GAP[0], height * (_BOX[1] + _GAP[1]) + 2 * _GAP[1])
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot(xlim=(-0.6, width - 0.4), ylim=(height - 0.4, -0.6))
    axes.set_axis_off()
    axes.set_title(title.replace("$", r"\$"))
    boxes = {}
    for name, place in places.items():
        color = _INPUT if name in graph.inputs else _OUTPUT if name in graph.outputs else _LAYER
        style = {"boxstyle": "round,pad=0.5", "facecolor": color, "edgecolor": "#555555"}
        text = labels[name].replace("$", r"\$")
        boxes[name] = axes.annotate(text, place, ha="center", va="center", fontsize=8, bbox=style, zorder=2)
    for source, target in graph.edges:
        # The first state is computed from the image, once.
        line = "dashed" if target == _STATE else "solid"
        bend = 0.25 if abs(places[source][1] - places[target][1]) > 1 else 0.0
        arrow: dict[str, Any] = {
            "arrowstyle": "-|>",
            "color": "#555555",
            "linestyle": line,
            "connectionstyle": f"arc3,rad={bend}",
        }
        arrow |= {"patchA": boxes[source].get_bbox_patch(), "patchB": boxes[target].get_bbox_patch(), "shrinkB": 2}
        axes.annotate("", places[target], places[source], arrowprops=arrow, zorder=1)
    return figure


def _label(layer: LayerInfo) -> str:
    weights = f", {layer.weights:,} weights" if layer.weights else ""
    return f"{layer.name}\n{layer.kind}{weights}\n{format_shape(layer.output_shape)}"


def format_shape(shape: tuple[int | None, ...] | None) -> str:
    """Returns `64×2048` for the output of one image, [B, 64, 2048]; empty if the layer is not called."""
    return "" if shape is None else "×".join("?" if size is None else str(size) for size in shape[1:])


def _arrange(graph: LayerGraph, labels: Mapping[str, str]) -> dict[str, tuple[float, int]]:
    """Returns column and row of each box: directly above the first box that reads it, and below those it reads."""
    edges = [(source, target) for source, target in graph.edges if target != _STATE]
    rows = dict.fromkeys(labels, 0)
    for _ in labels:
        for source, target in edges:
            rows[target] = max(rows[target], min(rows[source] + 1, len(labels)))
    for name in sorted(labels, key=lambda one: -rows[one]):
        if below := [rows[target] for source, target in edges if source == name]:
            rows[name] = min(below) - 1
    numbers = {row: number for number, row in enumerate(sorted(set(rows.values())))}
    widest = max(Counter(rows.values()).values())
    places: dict[str, tuple[float, int]] = {}
    for row, number in numbers.items():
        names = [name for name in labels if rows[name] == row]
        above = {name: [places[source][0] for source, target in edges if target == name] for name in names}
        # Boxes below their sources cross fewer arrows.
        names.sort(key=lambda name: fmean(above[name]) if above[name] else widest)
        left = (widest - len(names)) / 2
        places |= {name: (left + column, number) for column, name in enumerate(names)}
    return places
