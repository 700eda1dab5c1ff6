"""An objective inside an engine's own loss function: what all adapters share."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctpo.engines.update_files import recorded
from ctpo.objective import Mismatch, Objective, ObjectiveSpec
from ctpo.objective.parameters import unknown_name
from ctpo.objective.statistics.steps import on_policy_metrics

if TYPE_CHECKING:
    from torch import Tensor

    from ctpo.objective.output import ObjectiveOutput

ANCHORS = ("old", "rollout")

HOLES = (
    "masking single tokens punches holes in the mask, and what stands behind a hole gets another "
    "position t and another product rho_t than it was generated with"
)
RESTARTS = (
    "a response that is split into several samples begins its product anew in each: the ratio of a "
    "later turn then lacks the turns before it"
)
TRUNCATED = (
    "the sampler draws from another distribution than the one whose log-probs are trained: every "
    "ratio is off by the mass cut off, to the power t in a product"
)


class CustomLoss:
    """The loss per token of an objective, with the anchor that an engine can give it.

    Besides, the first batch that it sees is judged: the policy has not moved then, so log ρ_t must
    be 0, and what it is instead is logged as a mismatch of the two log-probs.

    Args:
        objective: Name of a preset, `module:name` for an objective of yours, or the objective.
        anchor: Which log-probs the ratio is against: `old`, the trainer's before the first update,
            or `rollout`, the generating engine's. Whatever that one computes differently, and every
            update since, is then part of each ratio, and of a product to the power t.
        mismatch_cap: Largest weight against the generator, ∏_{j≤t} π_old/μ; only with `anchor`
            `old`. None for no weight.
        positions: Directory `positions.parquet` that statistics by position are written to, one
            file per batch of rollouts; None for none.
        updates_per_batch: Optimizer updates on one batch of rollouts; needed with `positions`.
        **parameters: Of the preset, by name: `eps_low`, `power`, `dual_clip`, ...; `"off"` switches
            one off.

    Raises:
        ValueError: There is no such preset, parameter or anchor, or one has no effect.
    """

    def __init__(
        self,
        objective: str | Objective = "ctpo",
        *,
        anchor: str = "old",
        mismatch_cap: float | None = None,
        positions: str | Path | None = None,
        updates_per_batch: int | None = None,
        **parameters: Any,  # noqa: ANN401 - each has its type in the preset
    ) -> None:
        if anchor not in ANCHORS:
            raise unknown_name("anchor", str(anchor), ANCHORS)
        if not isinstance(objective, Objective):
            objective = ObjectiveSpec(objective, parameters).build()
        elif parameters:
            raise ValueError(
                f"{', '.join(parameters)} given beside an Objective, which has its own; change "
                "them there, or name the preset"
            )
        if mismatch_cap is not None:
            if objective.mismatch is not None:
                raise ValueError(f"mismatch_cap is given twice: here and by {objective.mismatch!r}")
            objective = replace(objective, mismatch=Mismatch(level="prefix", cap=mismatch_cap))
        if anchor == "rollout" and objective.mismatch is not None:
            raise ValueError(
                f"anchor is 'rollout' beside {objective.mismatch!r}: the ratio is against the "
                "generator already, so the weight would count it twice; leave mismatch_cap out"
            )
        self._files: tuple[Path, int] | None = None
        if positions is not None and updates_per_batch is not None:
            self._files = Path(positions), updates_per_batch
        elif positions is not None or updates_per_batch is not None:
            raise ValueError(
                f"positions is {positions!r} and updates_per_batch {updates_per_batch!r}; files by "
                "batch of rollouts need both"
            )
        if updates_per_batch is not None and updates_per_batch < 1:
            raise ValueError(f"updates_per_batch is {updates_per_batch}; it must be at least 1")
        self.objective = objective
        self.anchor = anchor
        self._judged = False

    def __call__(
        self,
        logprobs: Any,  # noqa: ANN401 - [B, T] or a list of [T_i]; so are the others
        advantages: Any,  # noqa: ANN401
        mask: Any,  # noqa: ANN401
        *,
        old: Any = None,  # noqa: ANN401
        rollout: Any = None,  # noqa: ANN401
    ) -> ObjectiveOutput[Any]:
        """Return the loss per token.

        Args:
            logprobs: log π_θ(a_t|s_t) in nats; the gradient flows to these.
            advantages: One per response or per token.
            mask: True on the tokens that the policy generated.
            old: The trainer's log-probs from before the first update; None if there are none.
            rollout: The generating engine's; None if there are none.

        Raises:
            ValueError: The log-probs that the anchor or the mismatch weight needs are missing, or
                shapes do not fit.
        """
        given = {"old": old, "rollout": rollout}
        against = given[self.anchor]
        weighted = self.objective.mismatch is not None
        if against is None or (weighted and rollout is None):
            missing = "rollout" if against is not None else self.anchor
            raise ValueError(
                f"the engine handed over no {missing} log-probs, which "
                f"{'mismatch_cap' if against is not None else 'anchor'} needs; it handed over "
                f"{', '.join(k for k, v in given.items() if v is not None) or 'none'}"
            )
        out = self.objective(
            logprobs, against, advantages, mask, rollout_logprobs=rollout if weighted else None
        )
        if not self._judged:
            self._judged = not math.isnan(
                on_policy_metrics(out.statistics)["on_policy/log_rho_max"]
            )
        if self._files is not None:
            recorded(*self._files).add(out.statistics)
        return out


def metrics(out: ObjectiveOutput[Any]) -> dict[str, float]:
    """Return what to log of a batch; see `PositionStatistics.summary`. Is read back to the host."""
    return {f"ctpo/{name}": value for name, value in out.statistics.summary().items()}


def weighed(per_token: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
    """Return Σ weight · loss over the policy's tokens, whatever stands at the others."""
    return (per_token * weights.where(mask, 0.0)).sum()


def built(settings: Mapping[str, Any]) -> CustomLoss:
    """Return the loss that a table of an engine's configuration describes: one for the same table.

    Args:
        settings: Of `CustomLoss`, as plain values; `objective` is the preset's name.

    Raises:
        ValueError: As for `CustomLoss`.
    """
    return _built(json.dumps(dict(settings), sort_keys=True))


@functools.lru_cache
def _built(settings: str) -> CustomLoss:
    return CustomLoss(**json.loads(settings))


def refuse(
    settings: object, allowed: Mapping[str, tuple[tuple[object, ...], str]], section: str = ""
) -> None:
    """Raise if an engine's setting would do nothing to our loss, or change what its ratio means.

    Args:
        settings: Has the settings as attributes or keys; one that it lacks, as other versions do,
            is fine.
        allowed: By name, dotted for one inside a section, the values that are fine and what to say
            of any other.
        section: What messages put before a name.

    Raises:
        ValueError: Names the setting, its value, the reason and what would be right.
    """
    for name, (values, words) in allowed.items():
        value = functools.reduce(_entry, name.split("."), settings)
        if value is not _ABSENT and value not in values:
            raise ValueError(f"{section}{name} is {value!r}; it must be {values[0]!r}: {words}")


_ABSENT = object()


def _entry(section: object, name: str) -> object:
    if isinstance(section, Mapping):
        return section.get(name, _ABSENT)
    return getattr(section, name, _ABSENT)
