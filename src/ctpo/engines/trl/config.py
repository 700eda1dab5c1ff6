"""`CTPOConfig`: TRL's GRPO configuration with the objective's parameters."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, fields
from typing import Any

from transformers.utils import is_torch_bf16_gpu_available
from trl import GRPOConfig

from ctpo.objective import Objective, preset

# Parameters of TRL's own losses. Left as knobs they would silently do nothing.
_OF_OTHER_LOSSES = (
    "beta",
    "delta",
    "entropy_coef",
    "epsilon",
    "epsilon_high",
    "importance_sampling_level",
    "off_policy_mask_threshold",
    "sapo_temperature_neg",
    "sapo_temperature_pos",
    "top_entropy_quantile",
    "use_adaptive_entropy",
    "use_bias_correction_kl",
    "vespo_k_neg",
    "vespo_k_pos",
    "vespo_lambda_neg",
    "vespo_lambda_pos",
)

# As in transformers, where it need not be whole batches of rollouts.
_SAVE_STEPS = 500

# Reductions of TRL that make sense for a loss per token.
REDUCTIONS = ("grpo", "bnpo", "dapo", "dr_grpo")

# What generation may be told besides: nothing that changes the distribution sampled from.
_HARMLESS = ("include_stop_str_in_output", "max_tokens", "seed", "stop", "stop_token_ids")

_UNTRUNCATED: dict[str, tuple[Any, ...]] = {
    "top_p": (1.0,),
    "top_k": (0, -1, None),
    "min_p": (None, 0.0),
    "repetition_penalty": (1.0,),
}


@dataclass
class CTPOConfig(GRPOConfig):
    """`GRPOConfig` plus the objective.

    `loss_type` chooses the reduction of the loss per token, in TRL's names: `grpo` (mean over the
    tokens of a response, then over responses; the paper's, and the default), `bnpo`, `dapo` or
    `dr_grpo`. An objective parameter left at None keeps the preset's value.

    Args:
        bf16: Whether to train in bfloat16; by default where the GPU can.
        save_steps: Optimizer steps between two checkpoints, a multiple of those taken on a batch of
            rollouts; by default the first such multiple from 500 on.
        objective: Name of the preset, a key of `ctpo.objective.PRESETS`. Reduction and advantages
            are TRL's to choose (`loss_type`, `scale_rewards`); `ctpo.objective.METHODS` says what
            each method's source takes.
        eps_low: Lower edge of a log-space window, times t^power.
        eps_high: Upper edge of a log-space window, times t^power.
        power: How a log-space window grows with position.
        clip_low: Lower edge of a ratio-space window, 1 - clip_low.
        clip_high: Upper edge of a ratio-space window, 1 + clip_high.
        dual_clip: Upper bound for negative advantages; `"off"` removes it.
        objective_parameters: Further parameters of the preset by name, e.g. `{"tau_pos": 0.9}`;
            `"off"` stands for none.

    Raises:
        ValueError: A parameter has no effect on CTPO or on the preset, sampling is truncated, or
            checkpoints would fall inside a batch of rollouts, where resuming is not exact.
    """

    bf16: bool | None = field(
        default=None, metadata={"help": "Whether to train in bfloat16; by default if a GPU can."}
    )
    save_steps: float | None = field(
        default=None,
        metadata={"help": "Optimizer steps between checkpoints, whole batches of rollouts."},
    )
    loss_type: str = field(
        default="grpo",
        metadata={"help": f"Reduction of the loss per token: one of {', '.join(REDUCTIONS)}."},
    )
    objective: str = field(default="ctpo", metadata={"help": "Name of the objective's preset."})
    eps_low: float | None = field(default=None, metadata={"help": "Lower log-space edge."})
    eps_high: float | None = field(default=None, metadata={"help": "Upper log-space edge."})
    power: float | None = field(default=None, metadata={"help": "Growth of the log-space window."})
    clip_low: float | None = field(default=None, metadata={"help": "Lower ratio-space edge."})
    clip_high: float | None = field(default=None, metadata={"help": "Upper ratio-space edge."})
    dual_clip: float | str | None = field(
        default=None, metadata={"help": "Upper bound for negative advantages, or 'off'."}
    )
    objective_parameters: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Further parameters of the preset by name."}
    )

    def __post_init__(self) -> None:
        given = self.save_steps
        self.save_steps = _SAVE_STEPS if given is None else given
        if self.bf16 is None and not is_torch_bf16_gpu_available():
            self.bf16 = False  # TRL's default is true, which cannot be had here
        super().__post_init__()
        if given is None:
            self.save_steps = -(-_SAVE_STEPS // self.steps_per_rollout) * self.steps_per_rollout
        self._refuse_other_losses()
        self._refuse_truncated_sampling()
        self._refuse_checkpoints_inside_a_batch()
        self.build_objective()
        if self.steps_per_rollout == 1:
            warnings.warn(
                "every update is on-policy: all ratios are 1, nothing is clipped and every "
                "objective is the same. Set steps_per_generation above "
                "gradient_accumulation_steps to take several steps on each batch of rollouts",
                stacklevel=3,
            )

    def build_objective(self) -> Objective:
        """Return the objective that the configuration describes.

        Raises:
            ValueError: The preset is unknown or has no such parameter.
        """
        names = ("eps_low", "eps_high", "power", "clip_low", "clip_high", "dual_clip")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        further = self.objective_parameters or {}
        if not isinstance(further, dict):
            raise ValueError(
                f"objective_parameters is {further!r}; it must map names to values, e.g. "
                '{"tau_pos": 0.9}'
            )
        for name in given.keys() & further.keys():
            raise ValueError(f"{name} is given twice, by itself and in objective_parameters")
        return preset(
            self.objective,
            **{
                name: None if value == "off" else value if name == "gradient" else float(value)
                for name, value in (given | further).items()
            },
        )

    @property
    def steps_per_rollout(self) -> int:
        """Optimizer steps between two batches of rollouts."""
        micro_batches = self.steps_per_generation * self.num_iterations
        return max(1, micro_batches // self.gradient_accumulation_steps)

    def _refuse_other_losses(self) -> None:
        if self.loss_type not in REDUCTIONS:
            raise ValueError(
                f"loss_type is {self.loss_type!r}; CTPO takes the reduction from it and knows "
                f"{', '.join(REDUCTIONS)}"
            )
        defaults = {f.name: f.default for f in fields(GRPOConfig)}
        for name in _OF_OTHER_LOSSES:
            if getattr(self, name) != defaults[name]:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}, which has no effect on the CTPO "
                    f"objective; leave it at {defaults[name]!r} (its window: eps_low, eps_high, "
                    "power, clip_low, clip_high, dual_clip)"
                )

    def _refuse_truncated_sampling(self) -> None:
        given = {name: getattr(self, name) for name in _UNTRUNCATED}
        extra = self.generation_kwargs if isinstance(self.generation_kwargs, dict) else {}
        given |= {name: value for name, value in extra.items() if name in _UNTRUNCATED}
        for name in extra:
            if name not in _UNTRUNCATED and name not in _HARMLESS:
                raise ValueError(
                    f"generation_kwargs has {name!r}, which can change the distribution sampled "
                    f"from; allowed are {', '.join(_HARMLESS)}"
                )
        for name, value in given.items():
            if value not in _UNTRUNCATED[name]:
                raise ValueError(
                    f"{name} is {value!r}; it must be {_UNTRUNCATED[name][0]!r}. The sampler would "
                    "draw from another distribution than the one whose log-probabilities are "
                    "trained: every ratio is off by the mass cut off, to the power t in a product"
                )

    def _refuse_checkpoints_inside_a_batch(self) -> None:
        steps = self.steps_per_rollout
        if self.save_strategy == "steps" and (self.save_steps or 0) % steps:
            raise ValueError(
                f"save_steps is {self.save_steps}; it must be a multiple of {steps}, the optimizer "
                "steps per batch of rollouts: the batch is not part of a checkpoint, so resuming "
                "inside one would train on other data"
            )
