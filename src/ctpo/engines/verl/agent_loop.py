"""verl's agent loop `ctpo`: one tool-integrated episode, with the meaning of `tir.run_episodes`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopBase,
    AgentLoopMetrics,
    AgentLoopOutput,
)
from verl.experimental.agent_loop.agent_loop import register as register_agent_loop

from ctpo.engines.verl.episodes.node_sandbox import node_sandbox
from ctpo.engines.verl.episodes.record import RECORD, episode_record
from ctpo.engines.verl.episodes.settings import KEY, LoopSettings
from ctpo.engines.verl.episodes.turns import TurnSampler, end_of_turn_ids
from ctpo.tir.open_episode import EpisodeRules, OpenEpisode
from ctpo.tir.programs import Outcome, arun_program

LOOP = "ctpo"


class EpisodeLoop(AgentLoopBase):
    """Runs one episode on verl's generation servers and the node's sandbox.

    verl makes one for each answer, as this module registers it or as `agent_loop.yaml` says. What
    the episode may use comes from `actor_rollout_ref.rollout.custom.episodes`, laid over `settings`
    of the yaml: see `LoopSettings`.

    Args:
        *args: verl's own; see `AgentLoopBase`.
        name: The loop's name in verl's registry.
        tools: Not used: the tool is part of the protocol.
        settings: As from the yaml.
        **kwargs: verl's own.

    Raises:
        ValueError: A setting that is unknown or impossible.
    """

    def __init__(
        self,
        *args: Any,  # noqa: ANN401
        name: str = LOOP,
        tools: object = None,
        settings: Mapping[str, Any] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, **kwargs)
        rollout = self.rollout_config
        custom = _plain(rollout.get("custom")) or {}
        self._settings = LoopSettings.read(_plain(settings), custom.get(KEY))
        self._prompt_length: int = rollout.prompt_length
        self._response_length: int = rollout.response_length
        self._context: int = rollout.get("max_model_len") or (
            self._prompt_length + self._response_length
        )
        self._end_ids = end_of_turn_ids(self.config.actor_rollout_ref.model.path, self.tokenizer)
        self._sandbox = node_sandbox(self._settings.sandbox)

    async def run(
        self,
        sampling_params: dict[str, Any],
        priority: int = 0,
        **kwargs: Any,  # noqa: ANN401
    ) -> AgentLoopOutput:
        """Run the episode; never raises because of what the policy writes.

        Args:
            sampling_params: Of the training rollout, or verl's for validation.
            priority: Makes the request's name repeatable under `full_determinism`.
            **kwargs: The problem's columns; `raw_prompt` holds its messages.

        Raises:
            ValueError: The prompt is longer than `data.max_prompt_length`, or is not text.
            RuntimeError: The server broke its word.
        """
        episode = OpenEpisode(*self._opened(kwargs["raw_prompt"]))
        request_id = uuid4().hex
        if self.rollout_config.get("full_determinism", False):
            where = (priority, kwargs.get("index"), kwargs.get("session_id"))
            request_id = "det-" + "-".join(map(str, where))
        sampler = TurnSampler(
            self.server_manager,
            episode.rules,
            self._end_ids,
            sampling_params,
            request_id=request_id,
            back_end=self.rollout_config.name,
        )
        outcomes: list[Outcome] = []
        generating = running = 0.0
        while episode.finish is None:
            started = time.perf_counter()
            turn = await sampler.turn(episode.prompt_ids + episode.ids, episode.budget)
            generated = time.perf_counter()
            call = episode.add_turn(turn)
            if call is not None:
                outcomes.append(await arun_program(call, self._sandbox.run))
                episode.add_outcome(call, outcomes[-1])
            generating += generated - started
            running += time.perf_counter() - generated
        trajectory = episode.trajectory()
        if not trajectory.response_ids:
            raise RuntimeError("the generation server returned no token")
        record = episode_record(trajectory, outcomes, episode.rules.settings.protocol)
        return AgentLoopOutput(
            prompt_ids=trajectory.prompt_ids,
            response_ids=trajectory.response_ids,
            response_mask=[int(policy) for policy in trajectory.mask],
            response_logprobs=trajectory.sampler_logprobs if sampler.with_logprobs else None,
            routed_experts=sampler.routed_experts,
            num_turns=1 + len(trajectory.turns),
            metrics=AgentLoopMetrics(
                generate_sequences=generating,
                tool_calls=running,
                num_preempted=sampler.num_preempted,
            ),
            extra_fields={
                **sampler.extra_fields,
                "turn_scores": [],
                "tool_rewards": [],
                RECORD: record,
            },
        )

    def _opened(self, raw_prompt: Sequence[Mapping[str, Any]]) -> tuple[EpisodeRules, list[int]]:
        messages = [dict(message) for message in raw_prompt]
        for message in messages:
            if not isinstance(message.get("content"), str):
                raise ValueError(
                    f"a {message.get('role')} message of the prompt is not text; the agent loop "
                    "`ctpo` takes text only"
                )
        if self._settings.system_message and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self._settings.system_message})
        template = _plain(self.apply_chat_template_kwargs) or {}
        rules = EpisodeRules(
            self.tokenizer, self._settings.episode(self._response_length, template)
        )
        prompt_ids = rules.encode(messages)
        if len(prompt_ids) > self._prompt_length:
            raise ValueError(
                f"the prompt has {len(prompt_ids)} tokens with its system message, more than "
                f"data.max_prompt_length={self._prompt_length}; raise that"
            )
        # A model's context may be shorter than the lengths that were asked for.
        room = self._context - len(prompt_ids)
        if self.rollout_config.name == "sglang":  # it keeps one token back
            room -= 1
        room = min(self._response_length, room)
        if room < 1:
            raise ValueError(
                f"the prompt has {len(prompt_ids)} tokens, which leaves no room in "
                f"rollout.max_model_len={self._context}"
            )
        if room < self._response_length:
            rules = EpisodeRules(self.tokenizer, self._settings.episode(room, template))
        return rules, prompt_ids


def _plain(value: Any) -> Any:  # noqa: ANN401
    """Return what a configuration holds, as plain Python."""
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def register() -> None:
    """Register the loop with verl. Doing so again changes nothing."""
    register_agent_loop(LOOP)(EpisodeLoop)


register()
