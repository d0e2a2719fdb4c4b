"""Options of caption generation."""

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
        "Sample words with this softmax temperature instead of searching. 0 means greedy decoding. Below "
        "1 makes captions more conservative, above 1 more diverse. Cannot be combined with a beam width "
        "above 1.",
        default="off",
    ),
]
TopK = Annotated[
    Count | None, Option("Sample only from the K most probable words. Requires --temperature.", default="off")
]
TopP = Annotated[
    float | None,
    Option(
        "Nucleus sampling: sample from the smallest set of words with a total probability of at least P, "
        "0 < P <= 1. Requires --temperature.",
        default="off",
    ),
]
SamplingSeed = Annotated[Natural, Option("Seed for sampling. Used only with --temperature.")]
NoRepeatNgramSize = Annotated[
    Count | None, Option("Never generate the same sequence of N words (n-gram) twice in a caption.", default="off")
]
BadWords = Annotated[
    tuple[str, ...], Option("Never generate WORD. WORD must be in the vocabulary of the run. Repeatable.", "WORD")
]
MaxNewTokens = Annotated[
    Count | None,
    Option(
        "Maximum number of generated tokens per caption. The end token counts.",
        default="length of the longest training caption, and one for the end token",
    ),
]


class SearchOptions(Options):
    """How the captions of beam search are chosen; None stands for the default of the run."""

    def generation(self) -> dict[str, Any]:
        """Returns the options of caption generation that were given, by name."""
        fields = {name for kind in (SearchOptions, GenerationOptions) for name in inspect.get_annotations(kind)}
        given = self.model_dump(include=fields | {"num_return_sequences"}, exclude_unset=True)
        return {name: value for name, value in given.items() if value not in (None, ())}

    num_beams: NumBeams = None
    length_penalty: LengthPenalty = None
    no_repeat_ngram_size: NoRepeatNgramSize = None
    bad_words: BadWords = ()
    max_new_tokens: MaxNewTokens = None


class GenerationOptions(SearchOptions):
    """How captions are searched for or sampled; None stands for the default of the run."""

    temperature: Temperature = None
    top_k: TopK = None
    top_p: TopP = None
    seed: SamplingSeed = 0
