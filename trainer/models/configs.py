"""Declares the hyperparameters of every model. A model accepts its config as an argument.

The module does not import Keras, so `capt config` takes 0.2 s instead of 4 s.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from schemas.choices import LanguageModel, RnnCell
from schemas.frozen import Settings
from schemas.options.extractor import Preprocess

if TYPE_CHECKING:
    from features.text.charset import Charset

KerasCell = Literal["rnn", "lstm", "gru"]

# Of the recognizer.
_PIXELS_PER_TIME_STEP = 4
_STAGES = 3  # if `filters` is that of a profile


class ModelConfig(Settings):
    """Hyperparameters of a model."""

    # Defaults of `trainer.config.CaptionerTraining` that differ for the model.
    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @property
    def max_caption_length(self) -> int | None:
        """Maximum number of words per caption; None for no limit."""
        return None


class BackboneConfig(Settings):
    """Hyperparameters of an extractor inside a captioner, which then reads a pixel table.

    Args:
        extractor: Extractor inside the model, as `--extractor` of `capt prepare features`; null for none.
        extractor_weights: Initial weights of the extractor, as `--weights` of `capt prepare features`.
        extractor_layer: Output layer of the extractor, as `--layer` of `capt prepare features`.
        extractor_preprocess: Input preprocessing of the extractor, as `--preprocess` of `capt prepare features`.
        extractor_lr_multiplier: Factor of the learning rate for the extractor; 0 freezes it.
    """

    extractor: str | None = None
    extractor_weights: str | None = None
    extractor_layer: str | None = None
    extractor_preprocess: Preprocess | None = None
    extractor_lr_multiplier: float = Field(0.0, ge=0, le=1)


# === Captioners with spatial features ===


class SoftAttentionConfig(ModelConfig):
    """Hyperparameters of `soft_attention`. Those of the paper are in `examples/configs/show_attend_tell.yaml`.

    Args:
        rnn_cell: Recurrent cell: `gru`, `lstm` as in the paper, or `rnn`.
        embedding_dim: Size of the word embeddings.
        units: Size of the recurrent state.
        attention_dim: Size of the space in which the attention score is computed.
        projection_dim: Size to which the features of each location are projected; null for no projection.
        output_dim: Size of the layer before the logits.
        dropout: Dropout rate of word embeddings and hidden states. One mask serves all time steps of a batch.
        image_dropout: Dropout rate of the features.
        attention_query: Input of the attention: the `state` before the word, or that state and the `word`.
        init_state: Initial recurrent state: `zeros`, or a projection of the `mean` over all locations.
        use_context_gate: Whether the context is multiplied by a gate between 0 and 1, computed from the state.
        doubly_stochastic: Weight of Σ_i (1 − Σ_t α_ti)² over a caption's words, divided by its number of words.
    """

    rnn_cell: KerasCell = "gru"
    embedding_dim: int = Field(256, ge=1)
    units: int = Field(512, ge=1)
    attention_dim: int = Field(512, ge=1)
    projection_dim: int | None = Field(256, ge=1)
    output_dim: int = Field(512, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    image_dropout: float = Field(0.0, ge=0, lt=1)
    attention_query: Literal["state", "word"] = "state"
    init_state: Literal["zeros", "mean"] = "zeros"
    use_context_gate: bool = False
    doubly_stochastic: float = Field(0.0, ge=0)


class HardAttentionConfig(SoftAttentionConfig):
    """Hyperparameters of `hard_attention`, with the values of the authors' code for COCO.

    Args:
        reinforce_weight: Weight of the REINFORCE term (c − b)·log α_t[s_t].
        entropy_weight: Weight of the negative entropy Σ α·log α.
        discount: Discount factor per word, 0 to 1, of the costs that are credited to a sampled location; null credits
            each location with the cost of the whole caption, as in the authors' code.
    """

    training_defaults = MappingProxyType({"learning_rate": 2e-4})

    rnn_cell: KerasCell = "lstm"
    embedding_dim: int = Field(512, ge=1)
    units: int = Field(1800, ge=1)
    projection_dim: int | None = Field(None, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    init_state: Literal["zeros", "mean"] = "mean"
    use_context_gate: bool = True
    doubly_stochastic: float = Field(1.0, ge=0)
    reinforce_weight: float = Field(0.1, ge=0)
    entropy_weight: float = Field(0.002, ge=0)
    discount: float | None = Field(None, ge=0, le=1)


class TransformerConfig(ModelConfig):
    """Hyperparameters of `transformer`.

    Args:
        num_layers: Number of decoder layers.
        units: Size of the word embeddings and of every layer; a multiple of `num_heads`.
        num_heads: Number of attention heads.
        dropout: Dropout rate of attention weights and of the outputs of the feed-forward layers.
        image_dropout: Dropout rate of the features.
        max_length: Maximum number of words per caption.
    """

    training_defaults = MappingProxyType({"learning_rate": 1e-4})

    num_layers: int = Field(2, ge=1)
    units: int = Field(256, ge=1)
    num_heads: int = Field(2, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    image_dropout: float = Field(0.0, ge=0, lt=1)
    max_length: int = Field(50, ge=1)

    @property
    def max_caption_length(self) -> int:
        return self.max_length

    @field_validator("num_heads")
    @classmethod
    def _divides_units(cls, num_heads: int, info: ValidationInfo) -> int:
        if info.data.get("units", num_heads) % num_heads:
            raise ValueError(f"units, {info.data['units']}, must be a multiple of num_heads")
        return num_heads


# === Captioners with pooled features ===


class RecurrentConfig(ModelConfig):
    """Hyperparameters of captioners with one recurrent layer over the words.

    Args:
        rnn_cell: Recurrent cell: `rnn`, `lstm` or `gru`; for m_rnn also `adding`, the cell of its paper.
        embedding_dim: Size of the word embeddings.
        units: Size of the recurrent state.
        dropout: Dropout rate of word embeddings and of the layers after the recurrent one.
        recurrent_weight_dropout: Dropout rate of the weights from state to state (weight-dropped LSTM).
        forget_bias: Initial bias of an LSTM's forget gate: with 1 it keeps 73% of its carry per word, with 3 95%.
    """

    rnn_cell: RnnCell = "lstm"
    embedding_dim: int = Field(256, ge=1)
    units: int = Field(256, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    recurrent_weight_dropout: float = Field(0.0, ge=0, lt=1)
    forget_bias: float = 1.0


class NicConfig(RecurrentConfig):
    """Hyperparameters of `nic`, with the values and the training of the authors' code.

    Args:
        feed: Steps at which the LSTM reads the image: `once`, as the word before the start token, or `every`, at every
            word as well, added to the word. Both have the same weights.
        image_dropout: Dropout rate of the projected image.
        init_scale: Initial weights are uniform between −init_scale and init_scale; null for Keras' defaults.
    """

    training_defaults = MappingProxyType(
        {"batch_size": 32, "optimizer": "sgd", "learning_rate": 2.0, "global_clipnorm": 5.0}
        | {"lr_schedule": "step", "lr_decay_rate": 0.5, "lr_decay_epochs": 8}
    )

    rnn_cell: KerasCell = "lstm"
    feed: Literal["once", "every"] = "once"
    embedding_dim: int = Field(512, ge=1)
    units: int = Field(512, ge=1)
    dropout: float = Field(0.3, ge=0, lt=1)
    image_dropout: float = Field(0.3, ge=0, lt=1)
    init_scale: float | None = Field(0.08, gt=0)


class MRnnConfig(RecurrentConfig):
    """Hyperparameters of `m_rnn`. Those of the authors' code are in `examples/configs/m_rnn_author.yaml`.

    Args:
        units: Size of the recurrent state; with the cell `adding`, the size of its inputs.
        embedding_dim_2: Size of the second embedding layer; null for one embedding layer.
        multimodal: Size of the multimodal layer.
        image_dropout: Dropout rate of the image.
        tie_word_embeddings: Whether the weights of the first embedding layer are also the output weights.
    """

    training_defaults = MappingProxyType({"global_clipnorm": 10.0})

    rnn_cell: RnnCell = "adding"
    embedding_dim: int = Field(128, ge=1)
    embedding_dim_2: int | None = Field(256, ge=1, validate_default=True)
    multimodal: int = Field(512, ge=1)
    image_dropout: float = Field(0.0, ge=0, lt=1)
    tie_word_embeddings: bool = False

    @field_validator("embedding_dim_2")
    @classmethod
    def _fits_units(cls, second: int | None, info: ValidationInfo) -> int | None:
        size, units = second or info.data.get("embedding_dim"), info.data.get("units")
        if info.data.get("rnn_cell") == "adding" and units not in (None, size):
            raise ValueError(f"the cell `adding` adds its inputs to its state, so units must be {size}, not {units}")
        return second


class InitInjectConfig(RecurrentConfig):
    """Hyperparameters of `init_inject`.

    Args:
        image_bottleneck: Size to which the image is reduced before it initializes the state.
        logit_bottleneck: Size of the layer before the logits.
        image_dropout: Dropout rate of the image.
    """

    training_defaults = MappingProxyType({"captions_per_image": "one"})

    rnn_cell: KerasCell = "lstm"
    embedding_dim: int = Field(100, ge=1)
    units: int = Field(300, ge=1)
    image_bottleneck: int = Field(120, ge=1)
    logit_bottleneck: int = Field(120, ge=1)
    image_dropout: float = Field(0.0, ge=0, lt=1)


class ParInjectConfig(RecurrentConfig):
    """Hyperparameters of `par_inject`.

    Args:
        dropout: Dropout rate of the image, the word embeddings and the hidden states.
    """

    rnn_cell: KerasCell = "gru"
    dropout: float = Field(0.5, ge=0, lt=1)


class MergeConfig(RecurrentConfig):
    """Hyperparameters of `merge`.

    Args:
        units: Size of the recurrent state, of the projected image and of the layer before the logits.
        image_dropout: Dropout rate of the image.
        merge_dropout: Dropout rate of the sum of hidden state and image.
    """

    training_defaults = MappingProxyType({"batch_size": 128})

    rnn_cell: KerasCell = "lstm"
    embedding_dim: int = Field(200, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    image_dropout: float = Field(0.5, ge=0, lt=1)
    merge_dropout: float = Field(0.0, ge=0, lt=1)


# === Recognizer ===


class RecognizerConfig(ModelConfig):
    """Hyperparameters of `recognizer`.

    Args:
        head: Head that predicts the labels: `ctc` or `attention`. The other head is the auxiliary head.
        filters: Number of channels per stage, at least two stages. Each stage halves height and width. Null for those
            of the profile for the number of train images.
        blocks_per_stage: Number of residual blocks per stage.
        units: Size of the recurrent state per direction.
        dropout: Dropout rate of the context.
        language_model: `words`: a recurrent layer passes information along the whole label, and thus learns which
            characters follow each other. `none`: a convolution sees the neighboring columns only, for random labels;
            there is no attention head. `auto`: the one that a test of the train labels chooses.
        text_rows: Number of rows of text, which share the height of the image equally and are read from top to bottom.
        charset: Characters that the recognizer can output; null for those of the train labels.
        max_label_length: Maximum number of characters per label; null for the length of the longest train label.
        ace_loss_weight: Weight of the aggregation cross-entropy (ACE).
        auxiliary_loss_weight: Weight of the loss of the auxiliary head.
        label_smoothing: Fraction of each target of the attention head that is spread evenly over all classes.
    """

    head: Literal["ctc", "attention"] = "ctc"
    filters: tuple[int, ...] | None = Field(None, min_length=2)
    blocks_per_stage: tuple[int, ...] = Field((0, 1, 2), min_length=2, validate_default=True)
    units: int = Field(96, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    language_model: LanguageModel = "words"
    text_rows: int = Field(1, ge=1, exclude_if=lambda rows: rows == 1)
    charset: str | None = Field(None, min_length=1, exclude_if=lambda charset: charset is None)
    max_label_length: int | None = Field(None, ge=1)
    ace_loss_weight: float = Field(3.0, ge=0)
    auxiliary_loss_weight: float = Field(0.5, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)

    @field_validator("blocks_per_stage")
    @classmethod
    def _matches_filters(cls, blocks: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        filters = info.data.get("filters")
        stages = len(filters) if filters else _STAGES
        if len(blocks) != stages:
            raise ValueError(f"blocks_per_stage must have as many numbers as filters, {stages}")
        return blocks

    @field_validator("charset")
    @classmethod
    def _sort_characters(cls, charset: str | None) -> str | None:
        return "".join(sorted(set(charset))) if charset else None

    @field_validator("language_model")
    @classmethod
    def _suits_head(cls, language_model: LanguageModel, info: ValidationInfo) -> LanguageModel:
        if language_model == "none" and info.data.get("head") == "attention":
            raise ValueError("the attention head counts characters over the whole label, which requires `words`")
        return language_model

    @property
    def reads_words(self) -> bool:
        """Whether the context is the whole label; a run replaces `auto` by the choice for its train labels."""
        return self.language_model != "none"

    @property
    def characters(self) -> "Charset":
        """The characters of the classes; a run sets `charset` to those of its train labels."""
        from features.text.charset import Charset

        if self.charset is None:
            raise ValueError("charset is not set")
        return Charset(tuple(self.charset))

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """The number of channels and of residual blocks per stage; a run sets `filters` from its profile."""
        if self.filters is None:
            raise ValueError("filters is not set")
        return tuple(zip(self.filters, self.blocks_per_stage, strict=True))

    @property
    def num_positions(self) -> int:
        """The number of positions of the attention head; a run sets `max_label_length` from its train labels."""
        if self.max_label_length is None:
            raise ValueError("max_label_length is not set")
        return self.max_label_length

    @property
    def column_width(self) -> int:
        """Number of pixels per column of the feature map."""
        return 1 << len(self.blocks_per_stage)

    @property
    def steps_per_column(self) -> int:
        """Number of CTC time steps per column."""
        return self.column_width // _PIXELS_PER_TIME_STEP

    def count_time_steps(self, width: int) -> int:
        """Returns the number of CTC time steps of images of this width."""
        return -(-width // self.column_width) * self.steps_per_column * self.text_rows

    def find_width(self, time_steps: int) -> int:
        """Returns the least width, a whole number of columns, that has so many time steps."""
        return -(-time_steps // (self.steps_per_column * self.text_rows)) * self.column_width
