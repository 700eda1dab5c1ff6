"""Generation with the vLLM engine that TRL runs beside the trainer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trl import GRPOTrainer

from ctpo.tir import Sampled, StopReason, StopRule
from ctpo.tir.turn_text import turn_text
from ctpo.tir.weights import check_weights


class TrlVllmGenerator:
    """A `Generator` on `GRPOConfig(use_vllm=True)`.

    Each turn is one request with the whole context as token ids; vLLM's prefix cache keeps the
    state between turns. vLLM draws from random numbers of its own, so runs on vLLM do not repeat to
    the last digit.

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
        """Start a session; see `Generator.open`. The seed is ignored: vLLM has its own."""
        check_weights(self.trainer.model)
        return TrlVllmSession(self.trainer, prompts, temperature)


class TrlVllmSession:
    """A `Session` whose contexts are sent anew each turn; made by `TrlVllmGenerator.open`."""

    def __init__(
        self, trainer: GRPOTrainer, prompts: Sequence[Sequence[int]], temperature: float
    ) -> None:
        self._trainer = trainer
        self._temperature = temperature
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
        turns = [_Turn(budget) for budget in budgets]
        # vLLM stops behind every closing fence. Where the rule says otherwise, the turn goes on.
        while going := [i for i, turn in enumerate(turns) if turn.reason is None]:
            contexts = [self._contexts[rows[i]] + turns[i].ids for i in going]
            most = max(turns[i].left for i in going)
            completions, logprobs = self._request(contexts, most)
            for i, ids, row_logprobs in zip(going, completions, logprobs, strict=True):
                turns[i].take(ids, row_logprobs, self._reason(turns[i], ids, stop))
        for row, turn in zip(rows, turns, strict=True):
            self._contexts[row] += turn.ids
        return [Sampled(t.ids, t.logprobs, t.reason) for t in turns if t.reason is not None]

    def _request(
        self, contexts: list[list[int]], most: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Sample on from each context, at most `most` tokens."""
        trainer, engine = self._trainer, self._trainer.vllm_generation
        if trainer.state.global_step != trainer._last_loaded_step:
            engine.sync_weights()
            trainer._last_loaded_step = trainer.state.global_step
        kept = engine.temperature, engine.max_completion_length
        # TRL has one temperature and one length for all requests, read at each of them.
        engine.temperature, engine.max_completion_length = self._temperature, most
        try:
            _, completions, logprobs, _ = engine.generate(
                prompts=contexts, images=None, num_generations=1
            )
        finally:
            engine.temperature, engine.max_completion_length = kept
        # vLLM gives no log-probability where it computed none; TRL's weight skips NaN.
        chosen = [
            [math.nan if token[0] is None else float(token[0]) for token in row] for row in logprobs
        ]
        return [list(ids) for ids in completions], chosen

    def _reason(self, turn: _Turn, ids: list[int], stop: StopRule) -> list[StopReason | None]:
        """Return for each new token whether the turn ends there, and why."""
        tokenizer = self._trainer.processing_class
        reasons: list[StopReason | None] = []
        for count, token in enumerate(ids, start=1):
            if token in self._trainer.eos_token_ids:
                reasons.append("eos")
            elif not set(stop.trigger).isdisjoint(tokenizer.decode([token])) and stop(
                turn_text(tokenizer, turn.ids + ids[:count])
            ):
                reasons.append("stop")
            else:
                reasons.append("length" if count == turn.left else None)
            if reasons[-1] is not None:
                break
        return reasons


class _Turn:
    """What a row has sampled in this turn so far."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.reason: StopReason | None = None

    @property
    def left(self) -> int:
        return self.budget - len(self.ids)

    def take(self, ids: list[int], logprobs: list[float], reasons: list[StopReason | None]) -> None:
        """Add the tokens up to the one that ends the turn, if one does.

        Stopping at a token that the text so far decides is a stopping time: what lies behind it can
        be dropped without changing the distribution of what is kept.
        """
        if not reasons:
            raise RuntimeError("vLLM returned no token for a context")
        self.ids += ids[: len(reasons)]
        self.logprobs += logprobs[: len(reasons)]
        self.reason = reasons[-1]
