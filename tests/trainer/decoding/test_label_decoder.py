import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.trainer.alignments import LETTERS, NUM_CLASSES, frames_of, word_probabilities
from trainer.decoding.label_decoder import LabelDecoder, Prediction
from trainer.models.recognizer_heads import decode_greedily

SCORES = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 5), st.just(4)), elements=st.floats(-9, 9, width=32, allow_subnormal=False)
)


def spelled(frames):
    """Logits [1, T, 27] whose likeliest classes are those written, `-` for the blank."""
    return (
        8
        * np.eye(NUM_CLASSES, dtype=np.float32)[[1 + LETTERS.characters.index(c) if c != "-" else 0 for c in frames]][
            None
        ]
    )


@pytest.mark.parametrize(
    ("frames", "word"),
    [("--nn-uu--l-l-", "null"), ("www", "w"), ("w-ww-w", "www"), ("------", ""), ("bookk", "bok"), ("-a", "a")],
)
def test_greedy_decoding_merges_repeated_characters_and_removes_blanks(frames, word):
    (prediction,) = LabelDecoder(LETTERS, "ctc", "greedy")(spelled(frames))
    assert prediction.text == word


@settings(deadline=None, max_examples=30)
@given(SCORES)
def test_every_strategy_scores_a_label_over_all_its_alignments(scores):
    logits = frames_of(scores)
    probabilities = word_probabilities(logits)
    for strategy in ("greedy", "beam", "lexicon"):
        (prediction,) = LabelDecoder(LETTERS, "ctc", strategy, words=list(probabilities))(logits[None])
        assert np.exp(prediction.score) == pytest.approx(probabilities[prediction.text], rel=1e-3, abs=1e-9)


@settings(deadline=None, max_examples=30)
@given(SCORES)
def test_an_exhaustive_beam_and_an_exhaustive_lexicon_find_the_most_probable_label(scores):
    logits = frames_of(scores)
    probabilities = word_probabilities(logits)
    for decoder in (
        LabelDecoder(LETTERS, "ctc", "beam", beam_width=10_000),
        LabelDecoder(LETTERS, "ctc", "lexicon", words=list(probabilities)),
    ):
        (prediction,) = decoder(logits[None])
        assert probabilities[prediction.text] == pytest.approx(max(probabilities.values()), rel=1e-3)


@settings(deadline=None, max_examples=30)
@given(SCORES, st.integers(1, 3))
def test_beam_search_finds_no_less_probable_label_than_greedy_decoding(scores, beam):
    logits = frames_of(scores)[None]
    (found,), (first,) = (
        LabelDecoder(LETTERS, "ctc", "beam", beam_width=beam)(logits),
        LabelDecoder(LETTERS, "ctc", "greedy")(logits),
    )
    assert found.score >= first.score - 1e-4


def test_beam_search_sums_the_alignments_of_a_label():
    # Each frame alone is likeliest blank; `a` somewhere is likelier than nowhere.
    logits = frames_of(np.log([[0.5, 0.48, 0.01, 0.01]] * 3))[None]
    assert LabelDecoder(LETTERS, "ctc", "greedy")(logits)[0].text == ""
    assert LabelDecoder(LETTERS, "ctc", "beam")(logits)[0].text == "a"


def test_the_lexicon_strategy_returns_words_of_the_lexicon_only():
    logits = spelled("h-o-u-s-e")
    assert LabelDecoder(LETTERS, "ctc", "lexicon", words=["horde", "mouse", "null"])(logits)[0].text == "mouse"


def test_the_attention_head_predicts_the_most_probable_label():
    logits = np.random.default_rng(0).normal(0, 2, (50, 3, NUM_CLASSES)).astype(np.float32)
    shifted = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for row, prediction in zip(shifted, LabelDecoder(LETTERS, "attention", "greedy")(logits), strict=True):
        best = max(
            (row[:n, 1:].max(1).sum() + row[n:, 0].sum(), "".join(LETTERS.characters[i] for i in row[:n, 1:].argmax(1)))
            for n in range(4)
        )
        assert prediction.text == best[1]
        assert prediction.score == pytest.approx(best[0], rel=1e-4)
    assert LabelDecoder(LETTERS, "attention", "beam")(logits) == LabelDecoder(LETTERS, "attention", "greedy")(logits)
    words = ["an", "www", "zoo"]
    scores = [[row[np.arange(3), ids].sum() for ids in ([1, 14, 0], [23, 23, 23], [26, 15, 15])] for row in shifted]
    for row, prediction in zip(scores, LabelDecoder(LETTERS, "attention", "lexicon", words=words)(logits), strict=True):
        assert prediction.text == words[int(np.argmax(row))]
        assert prediction.score == pytest.approx(max(row), rel=1e-4)


def test_greedy_ids_are_padded_with_zeros():
    ids, scores = decode_greedily("ctc", np.concatenate([spelled("-c-a-b-"), spelled("zz---y-")]))
    np.testing.assert_array_equal(ids, [[3, 1, 2, 0, 0, 0, 0], [26, 25, 0, 0, 0, 0, 0]])
    assert scores.shape == (2,)


def test_no_image_gives_no_prediction():
    none = np.empty((0, 7, NUM_CLASSES), np.float32)
    for head in ("ctc", "attention"):
        for strategy in ("greedy", "beam", "lexicon"):
            assert LabelDecoder(LETTERS, head, strategy, words=["null"])(none) == []


def test_predictions_are_compared_by_value():
    assert Prediction("null", -0.5) == Prediction("null", -0.5)
