"""The figure of a model has one box per layer that computes something, and one arrow per connection."""

from trainer.models.layer_graph import LayerGraph, LayerInfo
from trainer.reports.layer_figure import format_shape, layer_figure

GRAPH = LayerGraph(
    layers=(
        LayerInfo("embedding", "Embedding", (None, 8), 160, 160),
        LayerInfo("cell", "GRU", (None, 4), 1200, 1200),
        LayerInfo("dropout", "Dropout", None, 0, 0),
    ),
    inputs=("token", "state"),
    outputs=("next token",),
    edges=(("token", "embedding"), ("embedding", "cell"), ("state", "cell"), ("cell", "next token")),
)


def texts_of(figure):
    (axes,) = figure.axes
    return {text.get_text(): text.xyann for text in axes.texts if text.get_text()}


def test_boxes_name_layer_class_weights_and_shape():
    texts = texts_of(layer_figure(GRAPH, "mine"))
    assert texts.keys() == {
        "token",
        "state",
        "next token",
        "embedding\nEmbedding, 160 weights\n8",
        "cell\nGRU, 1,200 weights\n4",
    }


def test_a_box_is_below_all_boxes_that_it_reads():
    rows = {name.partition("\n")[0]: place[1] for name, place in texts_of(layer_figure(GRAPH, "mine")).items()}
    assert all(rows[source] < rows[target] for source, target in GRAPH.edges)


def test_there_is_an_arrow_per_connection():
    (axes,) = layer_figure(GRAPH, "mine").axes
    assert sum(text.arrow_patch is not None for text in axes.texts) == len(GRAPH.edges)


def test_a_shape_is_that_of_one_image():
    assert format_shape((None, 64, 2048)) == "64×2048"
    assert format_shape((None, None, 4)) == "?×4"
    assert format_shape(None) == ""
