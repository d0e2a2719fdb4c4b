"""Saying: the loop that beam search and sampling share, from the start token until all captions are over."""

from collections.abc import Callable
from typing import Any

from features.runtime.keras_settings import ops
from schemas.table_config import END, PAD, START
from trainer.decoding.generation import GenerationConfig, compile_function
from trainer.decoding.logits_processors import bad_words_mask, no_repeat_ngram_mask
from trainer.models.captioner import Captioner, State

# What is known of captions while they are said, a row a caption.
Said = dict[str, Any]


class AutoregressiveDecoder:
    """Says several captions of every image of a batch, a word of all of them at a time.

    A subclass implements `say`, and `decode`, which makes captions of what `saying` gives; `loop` is `decode` compiled.

    Args:
        model: Captioner. Built.
        decoding: GenerationConfig. What may be said, and how long it may be.
        captions: int. Captions of an image that are said together.
    """

    decode: Callable[..., tuple[Any, Any, Any]]

    def __init__(self, model: Captioner, decoding: GenerationConfig, captions: int) -> None:
        self.model = model
        self.decoding = decoding
        self.captions = captions
        self.loop = compile_function(self.decode)

    def say(self, position: Any, said: Said, state: State) -> tuple[Said, State]:
        """What is known after one more word, and the model's state then."""
        raise NotImplementedError

    def saying(self, features: Any, more: Said) -> Said:
        """All that is known once every caption is over or as long as it may be.

        Args:
            features: float [B, *shape].
            more: dict. What else is known before the first word, a row a caption.
        """
        most = self.decoding.max_new_tokens
        state = {name: ops.repeat(value, self.captions, axis=0) for name, value in self.model.begin(features).items()}
        rows = ops.shape(features)[0] * self.captions
        token = ops.full((rows,), START, dtype="int32")
        _, _, seen = self.model.step(token, state)
        said = {
            "token": token,
            "over": ops.zeros((rows,), dtype="bool"),
            "words": ops.zeros((rows, most), dtype="int32"),
            "scores": ops.zeros((rows,), dtype="float32"),
            "attention": ops.zeros((rows, most, 0 if seen is None else seen.shape[-1]), dtype="float32"),
            **more,
        }
        _, said, _ = ops.while_loop(self._goes_on, self._advance, (0, said, state), maximum_iterations=most)
        return said

    def allowed(self, logits: Any, words: Any, position: Any) -> Any:
        """float32 [rows, V]: the logits, and far less where the rules forbid a word."""
        rules, vocabulary = self.decoding, logits.shape[-1]
        allowed = ops.cast(logits, "float32") + bad_words_mask(vocabulary, rules.bad_word_ids)
        if rules.no_repeat_ngram_size:
            allowed += no_repeat_ngram_mask(words, position, rules.no_repeat_ngram_size, vocabulary)
        return allowed

    def with_word(self, said: Said, position: Any, token: Any, seen: Any) -> Said:
        """What is known with the word `token` int32 [rows] at `position`, said under the weights `seen`, or None."""
        here = ops.equal(ops.arange(self.decoding.max_new_tokens), position)
        word = ops.expand_dims(ops.where(ops.equal(token, END), PAD, token), 1)
        now = {
            **said,
            "token": token,
            "over": ops.logical_or(said["over"], ops.equal(token, END)),
            "words": ops.where(here, word, said["words"]),
        }
        if seen is not None:
            seen = ops.expand_dims(ops.cast(seen, "float32"), 1)
            now["attention"] = ops.where(ops.expand_dims(here, 1), seen, said["attention"])
        return now

    def by_image(self, said: Said) -> tuple[Any, Any, Any]:
        """Words [B, N, T], scores [B, N] and attention [B, N, T, places] of what is known a row a caption."""
        words, attention = said["words"], said["attention"]
        # Not −1: without attention there is nothing to divide.
        images = ops.shape(words)[0] // self.captions
        return (
            ops.reshape(words, (images, self.captions, words.shape[-1])),
            ops.reshape(said["scores"], (images, self.captions)),
            ops.reshape(attention, (images, self.captions, *attention.shape[1:])),
        )

    def _goes_on(self, position: Any, said: Said, state: State) -> Any:
        return ops.logical_not(ops.all(said["over"]))

    def _advance(self, position: Any, said: Said, state: State) -> tuple[Any, Said, State]:
        return (position + 1, *self.say(position, said, state))
