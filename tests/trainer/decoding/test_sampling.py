"""Tokens are sampled with the probabilities of the documented temperature table."""

from pathlib import Path

import numpy as np
import pytest

from schemas.errors import UsageError
from schemas.table_config import END, PAD, START, UNKNOWN
from tests.trainer.decoding.test_generation import IMAGES, Bigrams, Scripted, best_words, decode
from trainer.decoding.factory import make_decoder
from trainer.decoding.generation import GenerationConfig, parse_generation

PAGE = Path(__file__).parents[3] / "docs" / "how_to" / "decoding.md"
PROBABILITIES = (0.5, 0.4, 0.1)
NUM_SAMPLES = 100_000


def read_table():
    """Returns the table of the page: a temperature and three probabilities per row."""
    lines = PAGE.read_text().partition("| T | token 1")[2].partition("\n\n")[0].splitlines()[2:]
    return [tuple(float(cell) for cell in line.strip("| ").split("|")) for line in lines]


def measure_frequencies(temperature):
    """Decodes one token for each of `NUM_SAMPLES` evenly spaced numbers in 0 … 1."""
    logits = np.full((2, 7), -1e6, np.float32)
    logits[:, 4:] = np.log(PROBABILITIES)
    options = parse_generation({"max_new_tokens": 1, "temperature": temperature}).model_dump(exclude_unset=True)
    if "temperature" not in options:
        tokens = make_decoder(Scripted(logits), GenerationConfig(**options))(np.zeros((1, 3), np.float32)).tokens
    else:
        decoder = make_decoder(Scripted(logits), GenerationConfig(**options, num_return_sequences=NUM_SAMPLES))
        samples = ((np.arange(NUM_SAMPLES, dtype=np.float32) + 0.5) / NUM_SAMPLES)[:, None]
        tokens = np.array(decoder.compiled_decode(np.zeros((1, 3), np.float32), samples)[0])
    return np.bincount(tokens.ravel(), minlength=7)[4:] / tokens.size


def test_the_table_has_the_temperatures_of_the_course_project():
    assert [row[0] for row in read_table()] == [0, 0.01, 0.1, 1, 10, 100]


@pytest.mark.parametrize("row", read_table(), ids=lambda row: str(row[0]))
def test_tokens_are_sampled_as_in_the_table_of_the_documentation(row):
    temperature, *expected = row
    np.testing.assert_allclose(measure_frequencies(temperature), expected, atol=6e-4)


@pytest.mark.parametrize("row", read_table()[1:], ids=lambda row: str(row[0]))
def test_the_table_states_rounded_powers_of_the_probabilities(row):
    temperature, *stated = row
    powers = np.array(PROBABILITIES) ** (1 / temperature)
    shares = (powers / powers.sum()).tolist()
    assert stated == [round(share, 3) if share > 1e-3 else float(f"{share:.1e}") for share in shares]


@pytest.mark.parametrize("seed", [0, 3])
def test_a_temperature_of_0_is_greedy_decoding(seed):
    greedy = parse_generation({"max_new_tokens": 8})
    config = parse_generation({"max_new_tokens": 8, "temperature": 0, "seed": seed})
    assert config.model_dump(exclude={"seed"}) == greedy.model_dump(exclude={"seed"})
    toy = Bigrams(words=8, seed=3)
    assert best_words(make_decoder(toy, config)(IMAGES)) == best_words(make_decoder(toy, greedy)(IMAGES))


def test_the_lowest_temperature_samples_the_greedy_caption():
    toy = Bigrams(words=8, seed=3)
    sampled = decode(toy, IMAGES, 8, temperature=1e-6, num_return_sequences=5)
    for number, expected in enumerate(best_words(decode(toy, IMAGES, 8))):
        assert {tuple(row[row > 0]) for row in sampled.tokens[number]} == {tuple(expected)}


def test_the_highest_temperature_allows_no_token_that_is_never_generated():
    logits = np.zeros((6, 40), np.float32)
    decoded = decode(Scripted(logits), IMAGES, 5, temperature=1e6, num_return_sequences=400, bad_word_ids=(7,))
    before_end = decoded.tokens[..., 0]
    assert set(before_end.ravel()) == set(range(40)) - {UNKNOWN, START, END, 7}, "PAD stands for the end token"
    assert PAD in before_end


@pytest.mark.parametrize("temperature", [-1, 1e-9, 1e9, float("inf"), float("nan")])
def test_a_temperature_out_of_range_is_wrong_usage(temperature):
    with pytest.raises(UsageError, match=r"--temperature: .* is not a temperature: it is 0 \(greedy"):
        parse_generation({"max_new_tokens": 5, "temperature": temperature})


def test_greedy_decoding_is_no_beam_search_and_has_nothing_to_sample_from():
    with pytest.raises(UsageError, match=r"--temperature: .*cannot be combined with a beam"):
        parse_generation({"max_new_tokens": 5, "temperature": 0, "num_beams": 3})
    with pytest.raises(UsageError, match="require a temperature above 0"):
        parse_generation({"max_new_tokens": 5, "temperature": 0, "top_k": 3})
