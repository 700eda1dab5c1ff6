"""Generation with the vLLM engine that TRL runs beside the trainer."""

from __future__ import annotations

from collections.abc import Sequence

from trl import GRPOTrainer

from ctpo.tir import Sampled, StopReason, StopRule


class TrlVllmGenerator:
    """A `Generator` on `GRPOConfig(use_vllm=True)`.

    Each turn is one request with the whole context as token ids; vLLM's prefix cache keeps the
    state between turns. The trainer's `generation_kwargs` must make vLLM stop behind a closing
    fence (`stop`, `include_stop_str_in_output`), and its seed is vLLM's own, so runs on vLLM do not
    repeat to the last digit.

    Args:
        trainer: A trainer that was configured with `use_vllm`.

    Raises:
        ValueError: The trainer has no vLLM engine.
    """

    def __init__(self, trainer: GRPOTrainer) -> None:
        if not trainer.use_vllm:
            raise ValueError("use_vllm is False; generation with vLLM needs use_vllm=True")
        self.trainer = trainer

    def open(
        self, prompts: Sequence[Sequence[int]], *, temperature: float, seed: int
    ) -> TrlVllmSession:
        """Start a session; see `Generator.open`.

        Raises:
            ValueError: The temperature is not the trainer's.
        """
        if temperature != self.trainer.temperature:
            raise ValueError(
                f"temperature is {temperature}; the trainer's vLLM samples at "
                f"{self.trainer.temperature}"
            )
        return TrlVllmSession(self.trainer, prompts)


class TrlVllmSession:
    """A `Session` whose contexts are sent anew each turn."""

    def __init__(self, trainer: GRPOTrainer, prompts: Sequence[Sequence[int]]) -> None:
        self._trainer = trainer
        self._contexts = [list(prompt) for prompt in prompts]

    def generate(
        self,
        rows: Sequence[int],
        append: Sequence[Sequence[int]],
        budgets: Sequence[int],
        stop: StopRule,
    ) -> list[Sampled]:
        """Append tokens, then sample; see `Session.generate`."""
        for row, ids in zip(rows, append, strict=True):
            self._contexts[row] += ids
        _, completions, logprobs, _ = self._trainer.vllm_generation.generate(
            prompts=[self._contexts[row] for row in rows], images=None, num_generations=1
        )
        results = []
        for row, budget, ids, row_logprobs in zip(
            rows, budgets, completions, logprobs, strict=True
        ):
            # vLLM knows one length for all rows; what is beyond a row's own budget is dropped.
            ids = list(ids[:budget])
            self._contexts[row] += ids
            chosen = [float(token[0]) for token in row_logprobs[:budget]]
            results.append(Sampled(ids, chosen, self._reason(ids, stop)))
        return results

    def _reason(self, ids: list[int], stop: StopRule) -> StopReason:
        if ids[-1] in self._trainer.eos_token_ids:
            return "eos"
        text = self._trainer.processing_class.decode(ids, skip_special_tokens=True)
        return "stop" if stop(text) else "length"
