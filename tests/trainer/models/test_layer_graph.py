"""The layers of a model are listed with their shapes, weights and connections."""

import pytest

from trainer.models.layer_graph import trace_layers
from trainer.models.model_specs import MODELS, model_spec
from trainer.models.recognizer import Recognizer

VOCABULARY, LOCATIONS, CHANNELS = 23, 9, 20


def traced(name, tiny_sizes):
    spec = model_spec(name)
    shape = (LOCATIONS, CHANNELS) if spec.spatial else (CHANNELS,)
    model = spec.build(spec.config(**tiny_sizes[name]), VOCABULARY, shape)
    return model, trace_layers(model, shape)


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_of_a_captioner_is_in_a_row(name, tiny_sizes):
    model, graph = traced(name, tiny_sizes)
    assert sum(layer.weights for layer in graph.layers) == model.count_params()
    assert len({layer.name for layer in graph.layers}) == len(graph.layers)


@pytest.mark.parametrize("name", MODELS)
def test_image_and_token_lead_to_the_next_token(name, tiny_sizes):
    _, graph = traced(name, tiny_sizes)
    for start in ("features", "token", "state"):
        reached = {start}
        for _ in graph.edges:
            reached |= {target for source, target in graph.edges if source in reached}
        assert "next token" in reached, start


def test_the_connections_of_merge_are_those_of_its_paper(tiny_sizes):
    _, graph = traced("merge", tiny_sizes)
    assert set(graph.edges) == {
        ("features", "feature_normalization"),
        ("feature_normalization", "image"),
        ("token", "embedding"),
        ("embedding", "recurrence"),
        ("state", "recurrence"),
        ("recurrence", "output"),
        ("image", "output"),
        ("output", "logits"),
        ("logits", "next token"),
        ("recurrence", "new state"),
    }


def test_the_first_state_of_nic_is_computed_from_the_image(tiny_sizes):
    _, graph = traced("nic", tiny_sizes)
    assert {("image", "recurrence"), ("recurrence", "state")} <= set(graph.edges)


def test_shapes_are_those_of_one_image_and_one_token(tiny_sizes):
    _, graph = traced("soft_attention", tiny_sizes)
    shapes = {layer.name: layer.output_shape for layer in graph.layers}
    assert shapes["projection"] == (None, LOCATIONS, 14)
    assert shapes["logits"] == (None, VOCABULARY)


def test_weights_that_training_does_not_change_are_counted_apart(tiny_sizes):
    _, graph = traced("nic", tiny_sizes)
    (normalization,) = [layer for layer in graph.layers if layer.name == "feature_normalization"]
    assert (normalization.weights, normalization.trainable_weights) == (2 * CHANNELS, 0)


def test_the_recognizers_convolutions_are_listed_one_by_one():
    model = Recognizer(
        {"filters": (4, 8), "blocks_per_stage": (0, 1), "units": 6, "charset": "ab", "max_label_length": 3}
    )
    model.build((None, 16, 32, 3))
    graph = trace_layers(model, (16, 32, 3))
    assert sum(layer.weights for layer in graph.layers) == model.count_params()
    first = graph.layers[0]
    assert (first.name, first.kind, first.output_shape) == ("trunk_1", "Convolution", (None, 8, 16, 4))
    assert graph.outputs == ("ctc logits", "attention logits", "cells logits")
