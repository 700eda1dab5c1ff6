"""The recipe: everything that decides a run, typed, documented and checked before any work is done.

The text under a field is its documentation: what turning it does. It is shown by the reference page
and by `ctpo train --dry-run`.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, SkipValidation, field_validator, model_validator

from ctpo.objective import METHODS, REDUCTIONS, Objective, ObjectiveSpec
from ctpo.references import is_reference
from ctpo.tasks import BUILTIN
from ctpo.tir.protocols import PROTOCOLS, ToolProtocol, protocol
from ctpo.tir.tools import Tool
from ctpo.training.recipe.engines import Verl, Vllm
from ctpo.training.recipe.model import Lora, Model, Section, TinyModel, WarmStart

__all__ = [
    "Data",
    "EvaluationSection",
    "Lora",
    "Model",
    "ObjectiveSection",
    "Optimization",
    "Recipe",
    "Rollout",
    "SandboxSection",
    "Section",
    "TinyModel",
    "Verl",
    "Vllm",
    "WarmStart",
]


class Data(Section):
    """The problems."""

    train: str = "builtin"
    """`builtin`, `builtin-chain` (answers of a few hundred tokens), a Parquet or JSONL file in
    verl's schema, a Hub name, the `module:name` of a function (or a list) of yours that gives such
    rows or `Problem`s, `reasoning-gym:FAMILY` or `verifiers:TASKSET`."""
    held_out: str = "builtin"
    """The same for evaluation, or benchmarks: `aime25,brumo25`, each perhaps with a file to read it
    from, `aime25=FILE`. The built-in held-out problems are never trained on."""
    train_problems: int = Field(2000, ge=1)
    """How many problems to train on. Of a file, the first so many."""
    held_out_problems: int = Field(128, ge=1)
    """How many problems to evaluate on. Of a file and of each benchmark, the first so many."""
    hard_fraction: float = Field(0.0, ge=0, le=1)
    """Share of built-in problems with three-digit operands."""
    instructions: str | None = None
    """System message for problems that have none, such as how to use the tool; `protocol` stands
    for the text that goes with `rollout.protocol`."""

    @model_validator(mode="after")
    def _hard_needs_builtin(self) -> Self:
        if self.hard_fraction and "builtin" not in (self.train, self.held_out):
            raise ValueError("hard_fraction has no effect on problems from files")
        return self


# Read by `ObjectiveSpec`, as in the engines' own configurations.
Parameter = SkipValidation[bool | int | float | str | None]


class ObjectiveSection(Section):
    """The loss: a preset and what is changed of it."""

    preset: str = "ctpo"
    """A method: `ctpo`, `grpo`, `gspo`, ...; the documentation has a table of all."""
    import_: str | None = Field(None, alias="import")
    """A module of yours that registers methods, to be named by `preset`; or `module:name`, an
    objective in it, in place of `preset`. It must be installed or on `PYTHONPATH`."""
    reduction: str | None = None
    """From losses per token to one: `seq-mean-token-mean`, `token-mean` or `seq-mean-token-sum`
    (divided by `rollout.max_response_tokens`). Left out, the method's own."""
    advantages: Literal["normalized", "centered"] | None = None
    """From rewards to advantages: less the group's mean, divided by its deviation or not. Left
    out, the method's own."""
    eps_low: Parameter = None
    """Lower edge of a log-space window, times t^power. Smaller clips more."""
    eps_high: Parameter = None
    """Upper edge of a log-space window, times t^power."""
    power: Parameter = None
    """How a log-space window grows with position t: 0.5 follows the spread of the product."""
    clip_low: Parameter = None
    """Lower edge of a ratio-space window: 1 - clip_low."""
    clip_high: Parameter = None
    """Upper edge of a ratio-space window: 1 + clip_high."""
    dual_clip: Parameter = None
    """Upper bound for negative advantages, in the window's own terms; `off` removes it."""
    parameters: SkipValidation[dict[str, Any]] = Field(default_factory=dict)
    """Further parameters of the method by name, such as `tau_pos` of `sapo`, or
    `gradient = "literal"`; `off` stands for none."""

    @property
    def spec(self) -> ObjectiveSpec:
        """What the section says of the objective.

        Raises:
            ValueError: The preset is unknown or has no such parameter, or a value is wrong.
        """
        return ObjectiveSpec.of(
            self.preset, self, self.parameters, section="objective.", reference=self.import_
        )

    def build(self) -> Objective:
        """Return the objective itself.

        Raises:
            ValueError: As for `spec`.
        """
        return self.spec.build()

    @property
    def reduction_name(self) -> str:
        """The reduction, a key of `ctpo.objective.REDUCTIONS`."""
        return self.reduction or METHODS[self.spec.name].reduction

    @property
    def normalized(self) -> bool:
        """Whether advantages are divided by the deviation of their group."""
        if self.advantages is not None:
            return self.advantages == "normalized"
        return METHODS[self.spec.name].advantages == "group_normalized"

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        self.build()
        if self.reduction_name not in REDUCTIONS:
            raise ValueError(
                f"reduction is {self.reduction!r}; it must be one of {', '.join(REDUCTIONS)}"
            )
        return self


class Rollout(Section):
    """How answers are collected.

    Sampling is never cut by top-p or top-k: the mass cut off would bias every importance ratio, and
    the product over a prefix raises the bias to the power t.
    """

    prompts_per_batch: int = Field(16, ge=1)
    """Problems per batch of rollouts."""
    responses_per_prompt: int = Field(8, ge=2)
    """Answers per problem: the group whose mean and deviation normalise the reward."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature. The same temperature is used in the training log-probabilities."""
    max_response_tokens: int = Field(160, ge=1)
    """Most tokens of a response, the tool's output included."""
    protocol: str = "fence"
    """How the policy calls the tool: `fence`, a block of Python; `hermes`, a JSON call; `plain`,
    not at all; or the `module:name` of a `ToolProtocol` of yours."""
    tools: list[str] = Field(default_factory=list)
    """Tools beside Python, each the `module:name` of a function of yours or of a class that
    remembers within an episode. They need the protocol `hermes` or one of yours."""
    generator: str | None = None
    """What samples, in place of the training model or vLLM: the `module:name` of a function from
    the trainer to a `Generator`."""
    max_calls: int = Field(2, ge=0)
    """Most calls answered in one response, of Python and of other tools."""
    max_output_chars: int | None = Field(512, ge=2)
    """Most characters of a program's output that go back into the context."""
    max_output_tokens: int | None = Field(None, ge=2)
    """The same in tokens, in place of `max_output_chars`."""
    keep_every: int = Field(1, ge=0)
    """Every how many batches the trajectories are written to the run directory; 0 writes none."""
    mismatch_cap: float | None = Field(None, gt=1)
    """Upper bound of the weight against the generating engine's own probabilities (truncated
    importance sampling). Left out, there is no such weight."""
    mismatch_level: Literal["sequence", "prefix"] = "sequence"
    """What that weight is a product over: the response, or the tokens up to the one weighted."""

    @property
    def tool_protocol(self) -> ToolProtocol:
        """The protocol, with the tools.

        Raises:
            ValueError: It or one of the tools cannot be found or used.
        """
        tools = [Tool.of(name, "rollout.tools") for name in self.tools]
        return protocol(self.protocol, "rollout.protocol").with_tools(tools)

    @model_validator(mode="before")
    @classmethod
    def _one_limit_of_output(cls, values: Any) -> Any:  # noqa: ANN401 - whatever was given
        if isinstance(values, dict) and values.get("max_output_tokens") is not None:
            return {"max_output_chars": None} | values
        return values

    @model_validator(mode="after")
    def _effective(self) -> Self:
        if (self.max_output_chars is None) == (self.max_output_tokens is None):
            raise ValueError(
                f"max_output_chars is {self.max_output_chars} and max_output_tokens is "
                f"{self.max_output_tokens}; give one of them"
            )
        if self.protocol not in PROTOCOLS and not is_reference(self.protocol):
            raise ValueError(
                f"protocol is {self.protocol!r}; it must be one of {', '.join(PROTOCOLS)}, or "
                "module:name, one of yours"
            )
        if self.protocol == "plain" and self.max_calls:
            raise ValueError(
                f"max_calls is {self.max_calls}; the protocol plain calls no tool, so it must be 0"
            )
        if self.mismatch_cap is None and self.mismatch_level != "sequence":
            raise ValueError(
                f"mismatch_level is {self.mismatch_level!r}, which has no effect without a "
                "mismatch_cap"
            )
        return self


class Optimization(Section):
    """The updates."""

    batches: int = Field(60, ge=1)
    """Batches of rollouts."""
    updates_per_batch: int = Field(16, ge=1)
    """Optimizer steps per batch of rollouts. Every step but the first is off-policy."""
    micro_batch: int = Field(8, ge=1)
    """Responses per forward and backward pass: smaller takes less memory and more time."""
    learning_rate: float = Field(2e-4, gt=0)
    """Peak learning rate of AdamW."""
    schedule: Literal["linear", "constant"] = "linear"
    """What follows the warm-up: a linear decay to zero, or the peak rate to the end."""
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from zero."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Longer gradients are scaled down to this norm."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay."""
    adam_epsilon: float = Field(1e-8, gt=0)
    """Added to AdamW's denominator: gradients far below it take small steps, not full ones."""
    kl_coef: float = Field(0.0, ge=0)
    """Times KL(π_θ‖π_ref) per token, estimated as r - 1 - log r of r = π_ref/π_θ, this is added to
    the loss; π_ref is the policy that training began with. 0 needs no reference."""
    entropy_coef: float = 0.0
    """Times the mean entropy per token in nats, this is taken off the loss: more explores more."""
    keep_checkpoints: int | None = Field(None, ge=1)
    """How many checkpoints stay on disk, the newest; left out, all."""
    checkpoint_every: int = Field(20, ge=1)
    """Batches between checkpoints. They are written where resuming is exact: between batches."""


class SandboxSection(Section):
    """Where programs run."""

    timeout: float = Field(3.0, gt=0)
    """Seconds a program may take of its own; waiting for a processor does not count."""
    memory_mb: int = Field(512, ge=32)
    """Mebibytes a program may use."""
    preload: list[str] = Field(default_factory=list)
    """Modules imported once for all programs, such as `sympy`."""
    allow_weak: bool = False
    """Run even where the kernel cannot isolate programs. Only for code you trust."""
    max_failure_share: float = Field(0.02, ge=0, le=1)
    """Share of a batch's programs the sandbox itself may fail to run; more stop the training."""


class EvaluationSection(Section):
    """Held-out accuracy before, during and after training."""

    samples_per_problem: int = Field(4, ge=1)
    """Sampled answers per problem: the k of avg@k."""
    temperature: float = Field(1.0, gt=0)
    """Temperature of the sampled answers. On TRL, greedy accuracy is reported beside."""
    every: int = Field(15, ge=0)
    """Batches between evaluations; 0 evaluates at the start and the end only."""
    batch_size: int = Field(256, ge=1)
    """Episodes run side by side."""


class Recipe(Section):
    """Everything that decides a run."""

    name: str
    """Names the run directory."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Of the problems, their order and the sampling. The same seed gives the same metrics, if the
    training model itself generates; vLLM and verl do not repeat to the bit."""
    threads: int | None = Field(None, ge=1, le=512)
    """Processor threads of torch. Left out, torch decides; tiny models are fastest with 1."""
    engine: Literal["trl", "verl"] = "trl"
    """What trains: TRL on one machine, or verl on one or many."""
    rewards: dict[str, float] = Field(default_factory=lambda: {"grade": 1.0})
    """Weights of rewards by name: `grade`, `reasoning-gym`, `verifiers`, or the `module:name` of a
    function of yours of (trajectory, problem). The first says how good an answer is, which is what
    evaluations measure; the others shape the training."""
    report_to: list[Literal["tensorboard", "trackio", "wandb"]] = Field(default_factory=list)
    """Where metrics, evaluations and figures by position go, besides the run directory."""
    model: Model
    warm_start: WarmStart | None = None
    data: Data = Data()
    objective: ObjectiveSection = ObjectiveSection()
    rollout: Rollout = Rollout()
    vllm: Vllm | None = None
    verl: Verl | None = None
    optimization: Optimization = Optimization()
    sandbox: SandboxSection = SandboxSection()
    evaluation: EvaluationSection = EvaluationSection()

    @property
    def responses_per_batch(self) -> int:
        """Answers per batch of rollouts."""
        return self.rollout.prompts_per_batch * self.rollout.responses_per_prompt

    @property
    def accumulation(self) -> int:
        """Micro-batches per optimizer step."""
        return (
            self.responses_per_batch
            // self.optimization.updates_per_batch
            // self.optimization.micro_batch
        )

    @field_validator("name")
    @classmethod
    def _is_a_files_name(cls, name: str) -> str:
        if not name or name[0] == "." or {"/", "\\", "\0"} & {*name} or not name.isprintable():
            raise ValueError(f"it is {name!r}; it must be a file's name, as in tiny-hard")
        return name

    @model_validator(mode="before")
    @classmethod
    def _engine_has_its_section(cls, values: Any) -> Any:  # noqa: ANN401 - whatever was given
        if isinstance(values, dict) and values.get("engine") == "verl":
            return values | {"verl": values.get("verl", {})}
        return values

    @property
    def system_message(self) -> str | None:
        """The system message for problems that have none."""
        if self.data.instructions == "protocol":
            return self.rollout.tool_protocol.instructions
        return self.data.instructions

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        responses, updates = self.responses_per_batch, self.optimization.updates_per_batch
        if responses % updates:
            raise ValueError(
                f"optimization.updates_per_batch is {updates}; it must divide the {responses} "
                "responses of a batch"
            )
        if (responses // updates) % self.optimization.micro_batch:
            raise ValueError(
                f"optimization.micro_batch is {self.optimization.micro_batch}; it must divide the "
                f"{responses // updates} responses of an update"
            )
        if self.model.tiny is not None and self.warm_start is None:
            raise ValueError("model.tiny needs a [warm_start]: untrained, it is never right")
        if self.model.tiny is None and self.warm_start is not None:
            raise ValueError("warm_start has no effect on a model from a path; leave it out")
        if self.model.tiny is not None and self.vllm is not None:
            raise ValueError("a [vllm] section is for a model from a path")
        if self.vllm is not None and self.rollout.generator is not None:
            raise ValueError(
                f"rollout.generator is {self.rollout.generator!r}, and there is a [vllm] section; "
                "only one of them can sample"
            )
        if self.model.tiny is not None and self.rollout.protocol != "fence":
            raise ValueError(
                f"rollout.protocol is {self.rollout.protocol!r}; the warm start of a tiny model "
                "teaches fence"
            )
        if self.data.train in BUILTIN and self.data.train_problems < self.rollout.prompts_per_batch:
            raise ValueError(
                f"data.train_problems is {self.data.train_problems}; one batch takes "
                f"{self.rollout.prompts_per_batch}"
            )
        return self
