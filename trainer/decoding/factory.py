"""Creates the decoder for a generation config."""

from schemas.errors import UsageError
from trainer.decoding.beam_search import BeamDecoder
from trainer.decoding.decoding_loop import AutoregressiveDecoder
from trainer.decoding.generation import GenerationConfig
from trainer.decoding.sampling import SamplingDecoder
from trainer.models.captioner import Captioner


def make_decoder(model: Captioner, config: GenerationConfig) -> AutoregressiveDecoder:
    """Creates beam search, or sampling if the config has a temperature; weights of the model may change afterwards.

    Raises:
        UsageError: `max_new_tokens` exceeds the limit of the model.
    """
    longest = model.config.max_caption_length
    if longest is not None and config.max_new_tokens > longest + 1:
        message = f"{config.max_new_tokens} is more than the {longest + 1} tokens that the model can generate"
        raise UsageError(message, location="--max-new-tokens")
    return BeamDecoder(model, config) if config.temperature is None else SamplingDecoder(model, config)
