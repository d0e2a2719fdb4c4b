import os
from pathlib import Path

import pytest

from tests.trainer.programs import needs_java
from trainer.metrics.caption_tokenizer import mark_wrong_words, one_line, plain_tokenize, plain_tokens
from trainer.metrics.java import tokenize

TEXTS = [
    "A man's dog doesn't run, isn't it? (Yes!)",
    "black-and-white t-shirt -- 3.5 feet; $5 & 50% #1",
    'A "quoted" dog … — and a café, NAÏVE',
    "it\u2019s \u201csmart\u201d, \u2018so\u2019",
    "You cannot; they're gonna, we've, I'd, she'll, I'm",
    "1,000 dogs and/or 1/2 a [cat] {here} at 10:30",
    "",
    "...",
    "two dogs' balls, o'clock",
]


def test_words_are_lowercase_without_punctuation():
    assert plain_tokens("A dog, running!  Two CATS; -- (really) 'sleep'.") == (
        ["a", "dog", "running", "two", "cats", "-lrb-", "really", "-rrb-", "sleep"]
    )


def test_contractions_are_two_words():
    assert plain_tokens("the man's dog doesn't; it can't, they cannot") == (
        ["the", "man", "'s", "dog", "does", "n't", "it", "ca", "n't", "they", "can", "not"]
    )


def test_punctuation_within_a_word_stays():
    text = "a black-and-white t-shirt 3.5 by 1,000"
    assert plain_tokens(f"{text}, .") == text.split()


@pytest.mark.parametrize("end", ["\n", "\r", "\x0b", "\x1c", "\x85", "\u2028", "\u2029", "\r\n\t "])
def test_line_ends_of_all_kinds_become_spaces(end):
    assert one_line(f" a dog{end}runs{end}") == "a dog runs"


@needs_java
def test_the_plain_tokenizer_equals_ptb():
    assert plain_tokenize(TEXTS) == tokenize(TEXTS)


@needs_java
def test_ptb_equals_that_of_pycocoevalcap():
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    theirs = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(TEXTS)})
    assert tokenize(TEXTS) == [text for i in range(len(TEXTS)) for text in theirs[i]]


@needs_java
@pytest.mark.skipif("CAPT_TEST_DATA" not in os.environ, reason="CAPT_TEST_DATA names no folder of real captions")
def test_hardly_any_real_caption_is_tokenized_differently():
    lines = (Path(os.environ["CAPT_TEST_DATA"]) / "flickr8k-text" / "Flickr8k.token.txt").read_text("utf-8")
    texts = [one_line(line.split("\t", 1)[1]) for line in lines.splitlines()[::10] if "\t" in line]
    plain = plain_tokenize(texts)
    same = sum(a == b for a, b in zip(tokenize(texts), plain, strict=True))
    assert same >= 0.999 * len(texts)


def test_words_of_no_reference_are_wrong():
    assert mark_wrong_words(["a", "red", "square"], ["A green square.", "there is a tree"]) == [False, True, False]


def test_words_are_compared_as_the_metrics_count_them():
    assert mark_wrong_words(["doesn't", "man's", "dog", "."], ["It does n't!", "A man's DOG,"]) == [False] * 4
