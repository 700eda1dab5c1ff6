"""A policy that says what it is told to, behind verl's server interface and behind ours."""

import asyncio

from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import DictConfigWrap
from verl.workers.rollout.replica import TokenOutput

from ctpo.engines.verl.agent_loop import EpisodeLoop
from ctpo.tir import Sampled, StopReason


def logprob(token, position):
    """Every token has its own, so that none can end up at another's place unseen."""
    return -(token + position / 1000) / 1000


class ScriptedServer:
    """Stands where verl's `LLMServerClient` does: gives the turns of a script, token by token.

    It knows nothing of calls. Unless it `heeds` stop tokens it goes on to the end of what the
    script says, and it may `break_off` after so many tokens, as a server does whose weights change;
    vLLM and SGLang have each its own `word` for that. The first `busy` requests get nothing else.
    """

    def __init__(self, turns, *, heeds=True, break_off=None, word="aborted", busy=0, logprobs=True):
        self.turns = [list(turn) for turn in turns]
        self.heeds, self.break_off, self.logprobs = heeds, break_off, logprobs
        self.word, self.busy = word, busy
        self.requests = []
        self._turn, self._said, self._context = -1, 0, None

    async def generate(self, request_id, *, prompt_ids, sampling_params, **_):
        if self.busy:
            self.busy -= 1
            return TokenOutput(token_ids=[], log_probs=[], stop_reason=self.word)
        self.requests.append((request_id, list(prompt_ids), dict(sampling_params)))
        if prompt_ids != self._context:  # not where it broke off, so a new turn begins
            self._turn, self._said = self._turn + 1, 0
        left = self.turns[self._turn][self._said :][: sampling_params.get("max_tokens")]
        reason = "completed"
        if self.heeds:
            stops = [
                i for i, t in enumerate(left) if t in sampling_params.get("stop_token_ids", ())
            ]
            left = left[: stops[0] + 1] if stops else left
        if self.break_off is not None and len(left) > self.break_off:
            left, reason = left[: self.break_off], self.word
        start = self._said
        self._said += len(left)
        self._context = prompt_ids + left
        given = [logprob(t, start + i) for i, t in enumerate(left)]
        return TokenOutput(
            token_ids=left,
            log_probs=given if self.logprobs else None,
            stop_reason=reason,
            extra_fields={"min_global_steps": self._turn, "max_global_steps": self._turn + 5},
        )


class ScriptedGenerator:
    """The same policy as a `ctpo.tir.Generator`, cut by trying every length."""

    def __init__(self, tokenizer, turns):
        self._tokenizer = tokenizer
        self._turns = [list(turn) for turn in turns]

    def open(self, prompts, *, temperature, seed):
        assert len(prompts) == 1
        self._left = list(self._turns)
        return self

    def generate(self, rows, append, budgets, stop):
        said, (budget,) = self._left.pop(0), budgets
        for count in range(1, min(len(said), budget) + 1):
            ids = said[:count]
            reason: StopReason
            if ids[-1] == self._tokenizer.eos_token_id:
                reason = "eos"
            elif stop(self._tokenizer.decode(ids, skip_special_tokens=True)):
                reason = "stop"
            else:
                reason = "length"
            if reason != "length":
                break
        return [Sampled(ids, [logprob(t, i) for i, t in enumerate(ids)], reason)]


class InProcess:
    """A sandbox of this process where the node's would be."""

    def __init__(self, sandbox):
        self._sandbox = sandbox

    async def run(self, code):
        return await self._sandbox.arun(code)


def play_episode(server, tokenizer, path, messages, sampling, **settings):
    """Run one episode as verl's agent loop worker does: the loop is made where it runs."""

    async def run():
        loop = make_loop(server, tokenizer, path, **settings)
        return await loop.run(dict(sampling), raw_prompt=messages)

    return asyncio.run(run())


def make_loop(server, tokenizer, path, *, settings=None, rollout=None, data=None):
    """Return an `EpisodeLoop` as verl makes it."""
    config = OmegaConf.create(
        {
            "actor_rollout_ref": {
                "model": {"path": str(path)},
                "rollout": {
                    "name": "transformers",
                    "prompt_length": 500,
                    "response_length": 400,
                    "max_model_len": None,
                    "calculate_log_probs": True,
                    "full_determinism": False,
                    "custom": {"episodes": settings or {}},
                    **(rollout or {}),
                },
            },
            "data": {"apply_chat_template_kwargs": {}, **(data or {})},
        }
    )
    return EpisodeLoop(
        trainer_config=DictConfigWrap(config),
        server_manager=server,
        tokenizer=tokenizer,
        processor=None,
        dataset_cls=None,
        data_config=DictConfigWrap(config.data),
    )
