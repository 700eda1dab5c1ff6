"""The objective as tinker's custom loss, run on the client."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ctpo.engines.batch_files import write_positions
from ctpo.engines.custom_loss import CustomLoss, metrics
from ctpo.objective import Objective, PositionStatistics
from ctpo.objective.named.names import ReductionName
from ctpo.objective.reductions import reduce

if TYPE_CHECKING:
    from tinker import Datum

_FIELDS = ("logprobs", "advantages", "mask")
_FIXED = {
    "anchor": "it is 'rollout', for tinker has the sampler's log-probs alone",
    "positions": "write_positions writes them where it is told",
    "updates_per_batch": "write_positions is called once per batch of rollouts",
}


class TinkerLoss:
    """A loss for `TrainingClient.forward_backward_custom(data, loss)`.

    Each datum is one whole response. Of its `loss_fn_inputs` are read, all of the shape [T] of
    `target_tokens`: `logprobs`, the sampler's, in nats; `advantages`; and `mask`, 1 on the policy's
    own tokens. (tinker's own losses take no mask; a place without one would count as a position.)
    A response that is cut into several datums would begin its product anew in each: keep it whole.

    The gradient is exact: of the objective's slope per token tinker makes the weights of a
    cross-entropy. One call is one reduction, so give it a whole mini-batch.

    Args:
        objective: What to optimize: a preset's name, or e.g. `ctpo.preset("ctpo")`.
        reduction: A key of `ctpo.objective.REDUCTIONS`.
        **parameters: Of the preset that is named: `eps_low`, `power`, `dual_clip`, ...

    Raises:
        ValueError: As for `CustomLoss`; `anchor`, `positions` and `updates_per_batch` are none.

    Attributes:
        positions: Statistics by position since the last `write_positions`; None before a call.
    """

    def __init__(
        self,
        objective: str | Objective = "ctpo",
        *,
        reduction: ReductionName = "seq-mean-token-mean",
        **parameters: Any,  # noqa: ANN401 - each has its type in the preset
    ) -> None:
        reduce(torch.zeros(1), torch.ones(1, dtype=torch.int64), reduction)  # refuses a wrong name
        for name, instead in _FIXED.items():
            if name in parameters:
                raise ValueError(f"{name} is {parameters[name]!r}; leave it out: {instead}")
        self._loss = CustomLoss(objective, anchor="rollout", **parameters)
        self.reduction = reduction
        self.positions: PositionStatistics | None = None

    def __call__(
        self, data: Sequence[Datum], logprobs: Sequence[Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and what to log.

        Args:
            data: The responses.
            logprobs: Of the policy as it is, [T] each, which the loss is differentiated by.

        Raises:
            ValueError: A datum lacks a field, or has one of another length; names both.
        """
        pairs = enumerate(zip(data, logprobs, strict=True))
        columns = [_fields(i, datum, len(row)) for i, (datum, row) in pairs]
        out = self._loss(
            list(logprobs),
            [advantages for _, advantages, _ in columns],
            [mask for _, _, mask in columns],
            rollout=[sampled for sampled, _, _ in columns],
        )
        self.positions = (
            out.statistics if self.positions is None else self.positions + out.statistics
        )
        return out.mean(self.reduction), metrics(out)

    def write_positions(self, table: Path, batch: int) -> None:
        """Write the statistics by position of what was seen since the last time.

        Args:
            table: The directory `positions.parquet` of a run; made if it is not there.
            batch: Number of the batch of rollouts, from 1.

        Raises:
            ValueError: Nothing was seen.
        """
        if self.positions is None:
            raise ValueError(
                f"batch {batch} has no statistics: the loss has not been called for it"
            )
        table.mkdir(parents=True, exist_ok=True)
        write_positions(table, self.positions, batch)
        self.positions = None


def _fields(index: int, datum: Datum, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return a datum's log-probabilities, advantages and mask, [T] each."""
    found = []
    for name in _FIELDS:
        if name not in datum.loss_fn_inputs:
            raise ValueError(
                f"datum[{index}] has no loss_fn_inputs[{name!r}]; CTPO reads {', '.join(_FIELDS)}, "
                "one value per target token"
            )
        values = datum.loss_fn_inputs[name].to_torch()
        if values.shape != (length,):
            raise ValueError(
                f"datum[{index}] loss_fn_inputs[{name!r}] has shape {tuple(values.shape)}; it must "
                f"be ({length},), one value per target token"
            )
        found.append(values)
    old, advantages, mask = found
    return old, advantages, mask > 0
