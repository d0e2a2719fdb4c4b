"""The sizes of each captioner, and how its paper trains it; typed, and free of Keras so that they are quick to show."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from schemas.frozen import Settings

Cell = Literal["rnn", "lstm", "gru"]


class ModelConfig(Settings):
    """The sizes of a model; every field is an argument of the model's class.

    Attributes:
        training: mapping. Fields of `trainer.config.TrainingConfig` that the model's paper sets otherwise.
    """

    training: ClassVar[Mapping[str, Any]] = MappingProxyType({})

    @property
    def max_caption_length(self) -> int | None:
        """Words at most in a caption that the model reads or makes; None for any number."""
        return None


class SoftAttentionConfig(ModelConfig):
    """Sizes of `captioners.soft_attention.SoftAttention`, described there; the paper's are in examples/configs."""

    rnn_cell: Cell = "gru"
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
    """Sizes of `captioners.hard_attention.HardAttention`, described there; all as in the authors' code for COCO."""

    training: ClassVar[Mapping[str, Any]] = MappingProxyType({"learning_rate": 2e-4})

    rnn_cell: Cell = "lstm"
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
    """Sizes of `trainer.models.transformer.Transformer`, described there."""

    training: ClassVar[Mapping[str, Any]] = MappingProxyType({"learning_rate": 1e-4})

    num_layers: int = Field(2, ge=1)
    units: int = Field(256, ge=1)
    num_heads: int = Field(2, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    max_length: int = Field(50, ge=1)

    @property
    def max_caption_length(self) -> int:
        """Words at most in a caption: there are positions for so many."""
        return self.max_length

    @field_validator("num_heads")
    @classmethod
    def _divides_units(cls, heads: int, info: ValidationInfo) -> int:
        if info.data.get("units", heads) % heads:
            raise ValueError(f"heads must divide the units, {info.data['units']}")
        return heads


class NicConfig(ModelConfig):
    """Sizes of `trainer.models.nic.Nic`, described there; training as in the authors' published code."""

    training: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "batch_size": 32,
            "optimizer": "sgd",
            "learning_rate": 2.0,
            "lr_schedule": "step",
            "lr_decay_rate": 0.5,
            "lr_decay_epochs": 8,
            "global_clipnorm": 5.0,
        }
    )

    rnn_cell: Cell = "lstm"
    embedding_dim: int = Field(512, ge=1)
    units: int = Field(512, ge=1)
    dropout: float = Field(0.3, ge=0, lt=1)
    recurrent_weight_dropout: float = Field(0.0, ge=0, lt=1)
    image_dropout: float = Field(0.3, ge=0, lt=1)
    forget_bias: float = 1.0
    init_scale: float | None = Field(0.08, gt=0)


class MRnnConfig(ModelConfig):
    """Sizes of `trainer.models.m_rnn.MRnn`, described there; those of the authors' code are in examples/configs."""

    training: ClassVar[Mapping[str, Any]] = MappingProxyType({"global_clipnorm": 10.0})

    rnn_cell: Literal["adding", "rnn", "lstm", "gru"] = "adding"
    embedding_dim: int = Field(128, ge=1)
    embedding_dim_2: int | None = Field(256, ge=1)
    units: int = Field(256, ge=1, validate_default=True)
    multimodal: int = Field(512, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    recurrent_weight_dropout: float = Field(0.0, ge=0, lt=1)
    image_dropout: float = Field(0.0, ge=0, lt=1)
    tie_word_embeddings: bool = False

    @field_validator("units")
    @classmethod
    def _adds_what_it_reads(cls, units: int, info: ValidationInfo) -> int:
        reads = info.data.get("embedding_dim_2") or info.data.get("embedding_dim")
        if info.data.get("rnn_cell") == "adding" and reads not in (None, units):
            raise ValueError(f"the cell `adding` adds word vectors to its state, so units must be {reads} as well")
        return units


class InitInjectConfig(ModelConfig):
    """Sizes of `trainer.models.init_inject.InitInject`, described there."""

    training: ClassVar[Mapping[str, Any]] = MappingProxyType({"captions_per_image": "one"})

    rnn_cell: Cell = "lstm"
    embedding_dim: int = Field(100, ge=1)
    units: int = Field(300, ge=1)
    image_bottleneck: int = Field(120, ge=1)
    logit_bottleneck: int = Field(120, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    recurrent_weight_dropout: float = Field(0.0, ge=0, lt=1)
    forget_bias: float = 1.0
    image_dropout: float = Field(0.0, ge=0, lt=1)


class ParInjectConfig(ModelConfig):
    """Sizes of `trainer.models.par_inject.ParInject`, described there."""

    rnn_cell: Cell = "gru"
    embedding_dim: int = Field(256, ge=1)
    units: int = Field(256, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    recurrent_weight_dropout: float = Field(0.0, ge=0, lt=1)


class MergeConfig(ModelConfig):
    """Sizes of `trainer.models.merge.Merge`, described there."""

    training: ClassVar[Mapping[str, Any]] = MappingProxyType({"batch_size": 128})

    rnn_cell: Cell = "lstm"
    embedding_dim: int = Field(200, ge=1)
    units: int = Field(256, ge=1)
    dropout: float = Field(0.5, ge=0, lt=1)
    recurrent_weight_dropout: float = Field(0.0, ge=0, lt=1)
    image_dropout: float = Field(0.5, ge=0, lt=1)
    merge_dropout: float = Field(0.0, ge=0, lt=1)


class RecognizerConfig(ModelConfig):
    """Sizes of `trainer.models.recognizer.Recognizer`, described there."""

    head: Literal["ctc", "attention"] = "ctc"
    filters: tuple[int, ...] = Field((32, 64, 128), min_length=2)
    blocks_per_stage: tuple[int, ...] = (0, 1, 2)
    units: int = Field(96, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    max_label_length: int = Field(5, ge=1)
    ace_loss_weight: float = Field(3.0, ge=0)
    auxiliary_loss_weight: float = Field(0.5, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)

    @field_validator("blocks_per_stage")
    @classmethod
    def _one_a_width(cls, blocks: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        if len(blocks) != len(info.data.get("filters", blocks)):
            raise ValueError(f"blocks_per_stage must have as many numbers as filters, {len(info.data['filters'])}")
        return blocks
