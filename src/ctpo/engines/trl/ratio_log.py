"""What TRL's loss compares, written down: log-probs before and after, for `ctpo analyze`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torch import Tensor
from transformers import TrainerCallback
from trl import GRPOTrainer

from ctpo.disk import write_whole

# As a batch of TRL's has them, beside the policy's own.
_COLUMNS = (
    *("old_per_token_logps", "sampling_per_token_logps", "completion_mask", "tool_mask"),
    "completion_ids",
)


class RatioLog(TrainerCallback):
    """Writes a Parquet file of responses every few optimizer steps, as `ctpo analyze` reads them.

    ```python
    trainer.add_callback(RatioLog(trainer, "ratios"))
    ```

    It looks on while the loss is computed and changes nothing. Steps whose batch has no old
    log-probs, as where every update is on-policy, leave no file unless vLLM's are there.

    Args:
        trainer: A `GRPOTrainer`, also a `CTPOTrainer`.
        directory: Where to; made with the first file. Each process writes files of its own.
        every: Optimizer steps between files.

    Raises:
        ValueError: `every` is below 1.
    """

    def __init__(self, trainer: GRPOTrainer, directory: str | Path, every: int = 10) -> None:
        if every < 1:
            raise ValueError(f"every is {every!r}; it must be at least 1, e.g. 10")
        self._trainer, self._directory, self._every = trainer, Path(directory), every
        self._rows: list[dict[str, Any]] = []
        self._inputs: dict[str, Any] | None = None
        self._loss, self._logprobs = (
            trainer._compute_loss,
            trainer._get_per_token_logps_and_entropies,
        )
        trainer._compute_loss = self._compute_loss
        trainer._get_per_token_logps_and_entropies = self._per_token_logprobs

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:  # noqa: ANN401
        step = self._trainer.state.global_step
        self._inputs = inputs if model.training and step % self._every == 0 else None
        loss: Tensor = self._loss(model, inputs)
        self._inputs = None
        return loss

    def _per_token_logprobs(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        found = self._logprobs(*args, **kwargs)
        inputs, self._inputs = self._inputs, None  # of a loss, the first call is the policy's
        if inputs is not None:
            tensors = {name: inputs[name] for name in _COLUMNS if inputs.get(name) is not None}
            tensors["per_token_logps"] = found[0].detach().float()
            for i, advantage in enumerate(inputs["advantages"].tolist()):
                row = {name: tensor[i].tolist() for name, tensor in tensors.items()}
                self._rows.append(row | {"advantages": advantage})
        return found

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401
        """Write what the losses of the step compared."""
        rows, self._rows = self._rows, []
        if rows and {"old_per_token_logps", "sampling_per_token_logps"} & set(rows[0]):
            self._directory.mkdir(parents=True, exist_ok=True)
            process = self._trainer.accelerator.process_index
            file = self._directory / f"step-{state.global_step:06d}-process-{process}.parquet"
            write_whole(file, lambda aside: pq.write_table(pa.Table.from_pylist(rows), aside))
