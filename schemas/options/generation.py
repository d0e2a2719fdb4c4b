"""Declares the options of caption generation."""

import inspect
from typing import Annotated, Any

from schemas.options.base import Count, Natural, Option, Options

NumBeams = Annotated[Count | None, Option("Beam width. 1 is greedy decoding.", default="1")]
LengthPenalty = Annotated[
    float | None,
    Option(
        "Exponent of the caption length that divides the log-probability when beams are ranked. 0 favors"
        " short captions; 1 ranks by the mean per token. Must be 0 or more.",
        default="1.0",
    ),
]
Temperature = Annotated[
    float | None,
    Option(
        "Softmax temperature of sampling, which replaces beam search. 0 means greedy decoding. Below "
        "1 makes captions more conservative, above 1 more diverse. Cannot be combined with a beam width "
        "above 1.",
        default="off",
    ),
]
TopK = Annotated[
    Count | None, Option("Number of most probable words to sample from. Requires --temperature.", default="off")
]
TopP = Annotated[
    float | None,
    Option(
        "Minimum total probability of the smallest set of words to sample from (nucleus sampling), above 0 and at "
        "most 1. Requires --temperature.",
        default="off",
    ),
]
SamplingSeed = Annotated[Natural, Option("Seed of sampling. Used only with --temperature.")]
NoRepeatNgramSize = Annotated[
    Count | None, Option("Length of the n-grams that a caption may contain only once, in words.", default="off")
]
BadWords = Annotated[
    tuple[str, ...],
    Option("Word that is never generated. It must be in the vocabulary of the run. Repeatable.", "WORD"),
]
MaxNewTokens = Annotated[
    Count | None,
    Option(
        "Maximum number of generated tokens per caption. The end token counts.",
        default="length of the longest training caption plus one for the end token",
    ),
]


class SearchOptions(Options):
    """Settings of beam search; None selects the default of the run."""

    def generation(self) -> dict[str, Any]:
        """Returns the options of caption generation that were set, by name."""
        fields = {name for kind in (SearchOptions, GenerationOptions) for name in inspect.get_annotations(kind)}
        given = self.model_dump(include=fields | {"num_return_sequences"}, exclude_unset=True)
        return {name: value for name, value in given.items() if value not in (None, ())}

    num_beams: NumBeams = None
    length_penalty: LengthPenalty = None
    no_repeat_ngram_size: NoRepeatNgramSize = None
    bad_words: BadWords = ()
    max_new_tokens: MaxNewTokens = None


class GenerationOptions(SearchOptions):
    """Settings of beam search and sampling; None selects the default of the run."""

    temperature: Temperature = None
    top_k: TopK = None
    top_p: TopP = None
    seed: SamplingSeed = 0
