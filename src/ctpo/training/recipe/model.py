"""The parts of a recipe that say what the policy is and where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)


class Section(BaseModel):
    """A table of the recipe. Unknown keys are refused, and nothing changes after loading.

    No number is infinite, but for the objective's: a window may have no end.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth_value(cls, value: object, info: ValidationInfo) -> object:
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and bool not in (kind, *get_args(kind)):
            raise ValueError("it is a truth value, which is no number and no text")
        return value


class TinyModel(Section):
    """A Qwen3 built from its configuration, for machines without a GPU or a network."""

    hidden_size: int = Field(128, ge=8)
    """Width of the residual stream."""
    layers: int = Field(3, ge=1)
    """Number of layers."""
    heads: int = Field(4, ge=1)
    """Query heads."""
    key_value_heads: int = Field(2, ge=1)
    """Key and value heads; divides `heads`."""
    head_size: int = Field(32, ge=2, multiple_of=2)
    """Width of a head."""
    intermediate_size: int = Field(256, ge=8)
    """Width of the feed-forward layers."""
    vocabulary: int = Field(384, ge=128)
    """Entries of the tokenizer, which is trained on the warm start's transcripts."""
    weight_std: float = Field(0.08, gt=0)
    """Standard deviation of the initial weights."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.heads % self.key_value_heads:
            raise ValueError(
                f"heads is {self.heads}; it must be a multiple of key_value_heads, "
                f"{self.key_value_heads}"
            )
        return self


class Lora(Section):
    """Low-rank adapters instead of training every weight."""

    rank: int = Field(32, ge=1)
    """Rank of the adapters: more can learn more and takes more memory."""
    alpha: int = Field(64, ge=1)
    """Scale of the adapters; the update is multiplied by alpha / rank."""
    target_modules: str | list[str] = "all-linear"
    """Which layers get an adapter: module names, or `all-linear`."""


class Model(Section):
    """Where the policy comes from: `path` or `tiny`, one of them."""

    path: str | None = None
    """A model directory or a Hub name."""
    tiny: TinyModel | None = None
    """Build a tiny model and warm-start it."""
    lora: Lora | None = None
    """Train adapters only. Left out, every weight is trained."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What is computed in. With bfloat16, weights that are trained stay float32. On TRL logits and
    log-probabilities do, too, and frozen weights under adapters are kept in bfloat16."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: a third more time, much less memory."""
    chat_template_kwargs: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """Given to the chat template, e.g. `enable_thinking = false` for Qwen3."""
    tokenizer: str | None = None
    """A directory or Hub name to take the tokenizer from, where `path` has none."""
    chat_template: str | None = None
    """A Jinja file, or the template itself, in place of the tokenizer's; a base model has none."""

    @field_validator("chat_template")
    @classmethod
    def _read(cls, value: str | None) -> str | None:
        if value is None or "{" in value:
            return value
        if not Path(value).is_file():
            raise ValueError(f"there is no file {value!r}, and as a template it has no {{{{")
        return Path(value).read_text(encoding="utf-8")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.path is None) == (self.tiny is None):
            raise ValueError("exactly one of path and tiny must be given")
        for name in ("lora", "gradient_checkpointing", "tokenizer", "chat_template"):
            if self.tiny is not None and getattr(self, name):
                raise ValueError(f"{name} is for a model from a path")
        return self


class WarmStart(Section):
    """Supervised imitation of a sloppy teacher, so that the tiny model can use the tool."""

    problems: int = Field(8_400, ge=64)
    """Problems of the training split that the teacher answers."""
    transcripts: int = Field(17_600, ge=64)
    """Transcripts to learn from; the teacher goes through the problems again and again."""
    batch_size: int = Field(16, ge=1)
    """Transcripts per step."""
    learning_rate: float = Field(4e-3, gt=0)
    """Learning rate, of Muon on matrices and of AdamW on the rest."""
    target_accuracy: float = Field(0.25, ge=0, lt=1)
    """Sampled accuracy, on problems not learned from, at which the learning rate starts to fall.
    Copying numbers is learned suddenly and not always at the same step, so the accuracy decides and
    not a number of steps."""
    check_every: int = Field(100, ge=1)
    """Steps between two looks at the accuracy."""
    decay_steps: int = Field(300, ge=1)
    """Steps in which the learning rate falls to zero. More make a more accurate model."""
    max_steps: int = Field(3000, ge=1)
    """Steps after which a warm start below its target is given up with an error."""
    seed: int = 0
    """Of the weights, the transcripts and their order. Not the run's own seed: runs with other
    seeds share one warm start, as they would share a pretrained model."""
