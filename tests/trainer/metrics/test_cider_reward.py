import random
from itertools import accumulate

import numpy as np
import pytest

from schemas.table_config import SPECIAL_TOKENS
from trainer.metrics.caption_metrics import cider_d
from trainer.metrics.cider_reward import CiderReward

WORDS = [*"abcdefgh", "don't", "t-shirt", "café", "man's", "unseen", "!"]
VOCABULARY = [*SPECIAL_TOKENS, *WORDS]
LIMIT = 9


def make_images(count=40, seed=0):
    """One to five references and one caption of at most 9 tokens per image; some are empty, some equal a reference."""
    rng = random.Random(seed)
    references = [[make_text(rng, WORDS[:-2]) for _ in range(rng.randint(1, 5))] for _ in range(count)]
    captions = [rng.choice([*texts, make_text(rng, WORDS), make_text(rng, WORDS)]) for texts in references]
    return references, captions


def make_text(rng, words):
    return " ".join(rng.choices(words, k=rng.randint(0, LIMIT)))


def to_tokens(captions):
    tokens = np.zeros((len(captions), LIMIT), np.int32)
    for number, caption in enumerate(captions):
        ids = [VOCABULARY.index(word) for word in caption.split()]
        tokens[number, : len(ids)] = ids
    return tokens


def make_reward(references, **options):
    first = np.array([0, *accumulate(map(len, references))])
    return CiderReward([text for texts in references for text in texts], first, VOCABULARY, **options)


def test_the_mean_equals_the_cider_d_of_pycocoevalcap():
    references, captions = make_images()
    reward = make_reward(references, count_end=False)
    scores = reward(np.arange(len(captions)), to_tokens(captions)[:, None])
    assert scores.mean() == pytest.approx(cider_d(captions, references), abs=1e-6)
    assert scores.max() > 1


def test_several_captions_of_some_images_are_scored_as_each_one_alone():
    references, captions = make_images()
    reward = make_reward(references)
    tokens = to_tokens(captions)
    images = np.array([7, 3, 7])
    sampled = np.stack([tokens[[7, 3, 7]], tokens[[0, 1, 2]]], axis=1)
    scores = reward(images, sampled)
    assert scores.shape == (3, 2)
    for row, image in enumerate(images):
        for column in range(2):
            alone = reward(np.array([image]), sampled[row : row + 1, column : column + 1])
            assert scores[row, column] == pytest.approx(alone[0, 0], abs=1e-12)


def test_with_the_end_a_caption_without_its_last_word_loses():
    references = [["a dog on a bed", "a dog on a bed"], ["a cat on a sofa"], ["a bird"]]
    vocabulary = [*SPECIAL_TOKENS, "a", "dog", "on", "bed"]
    complete, incomplete = [4, 5, 6, 4, 7, 0], [4, 5, 6, 4, 0, 0]
    tokens = np.array([[complete, incomplete]], np.int32)
    first = np.array([0, 2, 3, 4])
    texts = [text for image in references for text in image]
    with_end = CiderReward(texts, first, vocabulary)(np.array([0]), tokens)[0]
    without = CiderReward(texts, first, vocabulary, count_end=False)(np.array([0]), tokens)[0]
    assert with_end[0] == pytest.approx(10)
    assert with_end[1] < without[1] < without[0]


def test_a_caption_of_the_maximum_length_has_no_end():
    references = [["a b c"], ["a b"], ["d"]]
    reward = make_reward(references)
    a, b, c = (VOCABULARY.index(word) for word in "abc")
    ended = reward(np.array([0]), np.array([[[a, b, c, 0]]], np.int32))
    cut = reward(np.array([0]), np.array([[[a, b, c]]], np.int32))
    assert ended[0, 0] == pytest.approx(10)
    assert cut[0, 0] < ended[0, 0]


@pytest.mark.parametrize("references", [[[""], [""]], [["a b c"]]])
def test_empty_references_and_a_single_image_score_0(references):
    reward = make_reward(references, count_end=False)
    captions = to_tokens(["a b c"] * len(references))[:, None]
    assert reward(np.arange(len(references)), captions).tolist() == [[0.0]] * len(references)


def test_words_that_no_reference_contains_lower_the_score():
    references, _ = make_images(10)
    references[0] = ["a b c d", "a b c d e"]
    reward = make_reward(references)
    score, lower = reward(np.array([0]), to_tokens(["a b c d", "a b c d unseen"])[None])[0]
    assert lower < score
