"""One turn of the policy on verl's generation servers, cut at the token that completes a call."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ctpo.tir import Sampled, StopReason
from ctpo.tir.open_episode import EpisodeRules
from ctpo.tir.protocols import ToolProtocol
from ctpo.tir.turn_text import turn_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

# Seconds between requests that a server aborts at once, while it takes new weights.
_PAUSE = 1.0
# So many answers without a token in a row mean that the server has nothing to say.
_MOST_EMPTY = 3
# What the servers count per request and an episode adds up.
_ADDED_UP = ("spec_num_draft_tokens", "spec_num_accepted_tokens", "spec_num_verify_steps")
# What ends a call.
_CLOSING = {"fence": "```", "hermes": "</tool_call>"}


class TurnSampler:
    """Samples the turns of one episode.

    Args:
        server: verl's client of its servers.
        rules: Of the episode.
        end_ids: Ids that end the policy's turn.
        sampling_params: verl's, such as temperature; `logprobs` says whether they are wanted.
        request_id: Keeps the episode on one server, where its prefix is cached.
        back_end: verl's `rollout.name`.

    Attributes:
        with_logprobs: Whether log-probabilities were asked for.
        extra_fields: What verl expects of the servers: weights' versions and counts.
        routed_experts: The servers' last word on them, if any.
        num_preempted: How often a request was set back; -1 where the server does not say.
    """

    def __init__(
        self,
        server: Any,  # noqa: ANN401 - an LLMServerClient of verl's
        rules: EpisodeRules,
        end_ids: frozenset[int],
        sampling_params: dict[str, Any],
        *,
        request_id: str,
        back_end: str,
    ) -> None:
        self._server = server
        self._rules = rules
        self._end_ids = end_ids
        self._closing_ids = frozenset().union(
            *(ids_with(character, rules.tokenizer) for character in rules.stop.trigger)
        )
        hint = stop_hint(rules.settings.protocol, rules.tokenizer, back_end)
        self._params = sampling_params | hint
        self._request_id = request_id
        self.with_logprobs = bool(sampling_params.get("logprobs"))
        self.extra_fields: dict[str, Any] = {}
        self.routed_experts: Any = None
        self.num_preempted = -1

    async def turn(self, context: Sequence[int], budget: int) -> Sampled:
        """Sample until a call is complete, the policy ends its turn or the budget is spent.

        Servers are asked to stop where a call may be complete. Where it is not, the turn goes on.
        What they generated behind one is dropped: the text up to there decides, so what is kept is
        distributed as if it had never been generated.

        Args:
            context: Token ids of the prompt and of everything since.
            budget: Most tokens to sample; at least 1.

        Raises:
            RuntimeError: The server gave not one log-probability a token, though asked.
        """
        ids: list[int] = []
        logprobs: list[float] = []
        empty = 0
        while True:
            output = await self._server.generate(
                request_id=self._request_id,
                prompt_ids=[*context, *ids],
                sampling_params={**self._params, "max_tokens": budget - len(ids)},
            )
            self._book(output)
            count, reason = self._end(ids, list(output.token_ids), budget)
            logprobs += self._logprobs(output)[:count]
            ids += output.token_ids[:count]
            aborted = output.stop_reason in ("aborted", "abort")  # for new weights; it goes on
            if aborted and not count:
                await asyncio.sleep(_PAUSE)
            elif not aborted:
                empty = 0 if count else empty + 1
            if reason is not None:
                return Sampled(ids, logprobs, reason)
            if empty == _MOST_EMPTY:  # its context is full, whatever we were told of it
                return Sampled(ids, logprobs, "length")
            if count and not aborted and not self._at_a_closing(ids):
                # Nobody asked it to stop here, so this was the end of the turn by its own lights.
                return Sampled(ids, logprobs, "eos")

    def _end(self, ids: list[int], new: list[int], budget: int) -> tuple[int, StopReason | None]:
        """Return how many of the new tokens belong to the turn, and why it ends there, if so."""
        rules = self._rules
        for count, token in enumerate(new, start=1):
            if token in self._end_ids:
                return count, "eos"
            if token in self._closing_ids and rules.stop(
                turn_text(rules.tokenizer, ids + new[:count])
            ):
                return count, "stop"
            if len(ids) + count == budget:
                return count, "length"
        return len(new), None

    def _at_a_closing(self, ids: list[int]) -> bool:
        """Whether the text so far may have made a server stop that was asked to do so."""
        # A fence and the line break behind it are a few tokens at most.
        return (
            self._rules.tokenizer.decode(ids[-8:])
            .rstrip()
            .endswith(tuple(self._rules.stop.trigger))
        )

    def _logprobs(self, output: Any) -> list[float]:  # noqa: ANN401
        given, count = output.log_probs, len(output.token_ids)
        if not self.with_logprobs:
            return [0.0] * count
        if count and len(given or ()) != count:
            raise RuntimeError(
                f"the generation server gave {count} tokens and {len(given or ())} "
                "log-probabilities; rollout.calculate_log_probs asks for one each"
            )
        return list(given or ())

    def _book(self, output: Any) -> None:  # noqa: ANN401
        """Keep what verl wants to know of every request."""
        given = output.extra_fields
        if not self.extra_fields:
            self.extra_fields = dict(given)
        else:
            if given.get("max_global_steps"):
                self.extra_fields["max_global_steps"] = given["max_global_steps"]
            for key in _ADDED_UP:
                if key in given and key in self.extra_fields:
                    self.extra_fields[key] = int(self.extra_fields[key]) + int(given[key])
        if output.routed_experts is not None:
            self.routed_experts = output.routed_experts
        if output.num_preempted is not None:
            self.num_preempted = max(self.num_preempted, 0) + output.num_preempted


@functools.lru_cache(maxsize=16)
def ids_with(text: str, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids of the tokens whose own text contains `text`; a second or two, once."""
    ids = range(len(tokenizer))
    return frozenset(i for i in ids if text in tokenizer.decode([i]))


def stop_hint(
    protocol: ToolProtocol, tokenizer: PreTrainedTokenizerBase, back_end: str
) -> dict[str, Any]:
    """Return sampling parameters that make a server stop near the end of a call.

    They save tokens and decide nothing. vLLM looks for text. The others of verl's servers know
    tokens only, and stop where a block opens as well, for one more request each time.
    """
    closing = _CLOSING.get(protocol.name)
    if closing is None:
        return {}
    if back_end == "vllm":
        text = "```\n" if protocol.name == "fence" else closing
        return {"stop": [text], "include_stop_str_in_output": True}
    ids = sorted(ids_with(closing, tokenizer))
    return {"stop_token_ids": ids} if ids else {}


@functools.lru_cache(maxsize=4)
def end_of_turn_ids(path: str, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Return the ids that end the policy's turn: the tokenizer's and the model's own.

    Raises:
        ValueError: Neither names one.
    """
    from transformers import GenerationConfig
    from verl.utils.fs import copy_to_local

    ids = {tokenizer.eos_token_id} - {None}
    try:
        configured = GenerationConfig.from_pretrained(copy_to_local(path)).eos_token_id
    except OSError as error:  # most often a model that has none
        logger.warning("turns end as the tokenizer says, for want of %s: %s", path, error)
        configured = None
    ids |= {configured} - {None} if isinstance(configured, int | None) else set(configured)
    if not ids:
        raise ValueError(
            f"neither the tokenizer nor the model at {path} names an end-of-turn token"
        )
    return frozenset(ids)
