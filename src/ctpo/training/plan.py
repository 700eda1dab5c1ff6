"""What one batch of a recipe needs on so many GPUs: arithmetic, before anything is rented.

A batch is generated, its old log-probabilities are computed, and its updates follow, one after the
other. Each is a count of tokens over a speed, rounded up to what one GPU must do at least. What
cannot be known beforehand is an assumption with a name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from pydantic import ConfigDict, Field, ValidationError

from ctpo.training.recipe.loading import explain
from ctpo.training.recipe.model import Section
from ctpo.training.recipe.recipe import Recipe


class Assumptions(Section):
    """What a plan rests on beside the recipe."""

    model_config = ConfigDict(allow_inf_nan=False)

    prompt_tokens: int = Field(200, ge=1)
    """Mean prompt."""
    mean_share: float = Field(0.5, gt=0, le=1)
    """Mean response as a share of the longest allowed."""
    call_share: float = Field(0.5, ge=0, le=1)
    """Mean calls of a response as a share of the most allowed."""
    output_share: float = Field(0.25, ge=0, le=1)
    """Mean output of a call that goes back, as a share of the most allowed."""
    gpu_tflops: float = Field(989.0, gt=0)
    """bfloat16, dense: an H100's data sheet."""
    gpu_memory_gb: float = Field(80.0, gt=0)
    """Memory of a GPU."""
    mfu: float = Field(0.35, gt=0, le=1)
    """Share of `gpu_tflops` that forward and backward passes reach."""
    generation_rate: float = Field(20_000, gt=0)
    """Tokens per second that a GPU generates, times billions of parameters."""
    token_ms: float = Field(15.0, gt=0)
    """Between two tokens of one answer, however few are generated beside it."""
    launch_us: float = Field(5.0, gt=0)
    """A kernel's launch, which is what the objective's operations cost."""
    cpu_ms: float = Field(9.1, gt=0)
    """CPU-milliseconds of a call: docs/sandbox.md, mixed programs."""
    grading_ms: float = Field(1.9, gt=0)
    """CPU-milliseconds to grade an answer: docs/grading.md."""
    grading_seconds: float = Field(2.0, gt=0)
    """Within which a batch is to be graded."""
    node_cores: int = Field(64, ge=1)
    """Processors of a sandbox node."""
    peak: float = Field(3.0, ge=1)
    """The most calls a second over the mean while a batch is generated."""
    characters: float = Field(3.5, gt=0)
    """Characters of a token."""

    @classmethod
    def of(cls, changes: Sequence[str]) -> Assumptions:
        """Return the assumptions with some changed, each `name=value`; else raise ValueError."""
        try:
            return cls(**dict(change.split("=", 1) for change in changes))
        except ValidationError as error:
            raise ValueError(explain(error, cls)) from None
        except (TypeError, ValueError):
            raise ValueError(f"{', '.join(changes)}: write name=value, as in mfu=0.4") from None


@dataclass(frozen=True)
class Shape:
    """A dense Qwen3, by the names of its `config.json`."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tie_word_embeddings: bool

    @property
    def parameters(self) -> int:
        """All weights, the norms' too."""
        heads = self.num_attention_heads + self.num_key_value_heads
        layer = 2 * self.hidden_size * self.head_dim * heads + 2 * self.hidden_size
        layer += 3 * self.hidden_size * self.intermediate_size + 2 * self.head_dim
        embeddings = (2 - self.tie_word_embeddings) * self.vocab_size * self.hidden_size
        return self.num_hidden_layers * layer + embeddings + self.hidden_size

    def forward_flops(self, length: float) -> float:
        """Of one token of a sequence of `length`: two a weight, and attention to half of it."""
        lookup = (1 - self.tie_word_embeddings) * self.vocab_size * self.hidden_size
        width = self.num_hidden_layers * self.num_attention_heads * self.head_dim
        return 2 * (self.parameters - lookup) + 2 * width * length


_KNOWN = {
    "Qwen/Qwen3-4B": Shape(2560, 36, 32, 8, 128, 9728, 151_936, True),
    "Qwen/Qwen3-14B": Shape(5120, 40, 40, 8, 128, 17_408, 151_936, False),
}


def shape_of(recipe: Recipe) -> Shape:
    """Return the shape of a recipe's model without a network; else raise ValueError."""
    tiny, name = recipe.model.tiny, str(recipe.model.path)
    if tiny is not None:
        sizes = (tiny.hidden_size, tiny.layers, tiny.heads, tiny.key_value_heads, tiny.head_size)
        return Shape(*sizes, tiny.intermediate_size, tiny.vocabulary, True)
    if name in _KNOWN:
        return _KNOWN[name]
    try:
        config = json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
        if config["model_type"] != "qwen3":
            raise ValueError(f"a {config['model_type']}")
        return Shape(**{field.name: config[field.name] for field in fields(Shape)})
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"model.path is {name!r}, whose shape is not known ({error}); name one of "
            f"{', '.join(_KNOWN)}, or a directory with a Qwen3's config.json"
        ) from None


OBJECTIVE_FLOATS = 13
"""float32 per token that the objective holds at its peak beyond its inputs, with holes."""
_OPERATIONS = 60, 140
"""Of the objective and of its statistics, a micro-batch, forward and backward."""
_FILE_BYTES = 10_000
"""What a Parquet file of trajectories has without rows."""


def plan(recipe: Recipe, gpus: int, given: Assumptions) -> list[tuple[str, str, float, str]]:
    """Return what one batch needs on so many GPUs: what, its unit, how much, and how it grows.

    Args:
        recipe: The recipe.
        gpus: All train, and all generate.
        given: What to assume.

    Raises:
        ValueError: There are no GPUs, or the recipe's model is not known.
    """
    if gpus < 1:
        raise ValueError(f"gpus is {gpus}; it must be at least 1")
    shape, rollout, optimization = shape_of(recipe), recipe.rollout, recipe.optimization
    size, answers = shape.parameters, recipe.responses_per_batch
    calls = given.call_share * rollout.max_calls
    output = rollout.max_output_tokens or (rollout.max_output_chars or 0) / given.characters
    response = given.mean_share * rollout.max_response_tokens
    policy = max(1.0, response - calls * given.output_share * output)
    length, longest = given.prompt_tokens + response, rollout.max_response_tokens
    speed = given.mfu * 1e12 * given.gpu_tflops
    forward = length * shape.forward_flops(length) / speed  # seconds of a sequence

    even = answers * policy / (gpus * given.generation_rate / (size / 1e9))
    tail = longest * given.token_ms / 1000
    generation = max(even, tail)
    old = math.ceil(answers / gpus) * forward
    update = answers // optimization.updates_per_batch
    passes = 4 if recipe.model.gradient_checkpointing else 3
    each = math.ceil(update / gpus)
    updates = optimization.updates_per_batch * each * passes * forward
    micro_batches = optimization.updates_per_batch * math.ceil(each / optimization.micro_batch)
    objective, statistics = (micro_batches * n * given.launch_us / 1e6 for n in _OPERATIONS)
    step = generation + old + updates + objective + statistics

    at_once = optimization.micro_batch * (given.prompt_tokens + longest)
    share = recipe.verl.gpu_memory_share if recipe.verl else 0.6
    tensor_parallel = recipe.verl.tensor_parallel if recipe.verl else 1
    cache = share * given.gpu_memory_gb * 1e9 - 2 * size / tensor_parallel
    cached = 4 * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim * longest
    rate = answers * calls / generation
    cores = given.peak * rate * given.cpu_ms / 1000
    # Two log-probabilities, ids in as many bits as they need, the text as a whole and by turns.
    row_bytes = 8 * policy + (math.log2(shape.vocab_size) / 8 + given.characters) * length
    row_bytes += given.characters * response
    kept = math.ceil(optimization.batches / rollout.keep_every) if rollout.keep_every else 0
    disk = kept * (answers * row_bytes + _FILE_BYTES)
    checkpoints = optimization.keep_checkpoints or optimization.batches
    graders = math.ceil(answers * given.grading_ms / 1000 / given.grading_seconds)
    kept_hidden = shape.num_hidden_layers * shape.hidden_size
    both, longer = "answers / GPUs", "longest answer"
    return [
        ("tokens", "million", answers * length / 1e6, "answers × length"),
        ("of them the policy's", "million", answers * policy / 1e6, "answers × length"),
        ("generation", "s", generation, f"{both}, not below the longest answer"),
        ("longest answer alone", "s", tail, longer),
        ("old log-probabilities", "s", old, both),
        ("updates", "s", updates, f"{both}, at least one of each update a GPU"),
        ("GPUs without work in updates", "%", 100 * (1 - update / (each * gpus)), "GPUs"),
        ("objective", "% of the step", 100 * objective / step, "micro-batches"),
        ("its statistics", "% of the step", 100 * statistics / step, "micro-batches"),
        ("step", "s", step, "their sum"),
        ("weights, gradients, Adam", "GB a GPU", 16 * size / gpus / 1e9, "parameters / GPUs"),
        ("logits of a micro-batch", "GB", 10 * at_once * shape.vocab_size / 1e9, longer),
        ("activations kept", "GB", 2 * at_once * kept_hidden / 1e9, longer),
        ("objective's memory", "GB", 4 * OBJECTIVE_FLOATS * at_once / 1e9, longer),
        (
            "answers that fit side by side",
            "a GPU",
            max(0.0, cache / cached),
            "memory / longest answer",
        ),
        ("answers there are", "a GPU", answers / gpus, both),
        ("tool calls", "thousand", answers * calls / 1000, "answers"),
        ("tool calls while generating", "1/s", rate, "answers / generation"),
        ("processors for them at the peak", "", cores, "tool calls a second"),
        ("sandbox nodes", "", math.ceil(cores / given.node_cores), "tool calls a second"),
        ("grading processes", "", graders, "answers"),
        ("trajectories kept, at most", "GB", disk / 1e9, "tokens × batches / keep_every"),
        ("checkpoints", "GB", 14 * size * checkpoints / 1e9, "parameters"),
    ]


def table(recipe: Recipe, gpus: Sequence[int], given: Assumptions) -> str:
    """Return plans beside each other as a table in Markdown, below what they assume; see `plan`."""
    plans = [plan(recipe, count, given) for count in gpus]
    assumed = ", ".join(f"{name}={value:g}" for name, value in given.model_dump().items())
    lines = [["one batch", "", *(f"{count} GPUs" for count in gpus), "grows with"]]
    lines.append(["---"] * len(lines[0]))
    for rows in zip(*plans, strict=True):
        what, unit, _, grows = rows[0]
        lines.append([what, unit, *(_number(row[2]) for row in rows), grows])
    shown = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{recipe.name}, assuming {assumed}\n\n{shown}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
