"""A rollout server for verl that generates with `transformers`; its name is `transformers`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Any

import ray
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica, TokenOutput

from tests.engines.verl.cpu.generation import BatchingGenerator, Request


class GenerationServer:
    """The Ray actor that holds the model and answers verl's `LLMServerClient`."""

    def __init__(self, path: str, longest: int, most: int, seed: int) -> None:
        torch.set_num_threads(1)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(path)
        self._generator = BatchingGenerator(model, tokenizer, longest, most, seed)
        self._budget = longest

    async def generate(
        self,
        prompt_ids: list[int],
        sampling_params: dict[str, Any],
        request_id: str,
        image_data: object = None,
        video_data: object = None,
    ) -> TokenOutput:
        """Sample on; parameters that this server cannot honour are refused by name."""
        given = dict(sampling_params)
        for key, harmless in (
            ("top_p", (1, 1.0)),
            ("top_k", (-1, 0)),
            ("repetition_penalty", (1, 1.0)),
            ("include_stop_str_in_output", (True, False)),  # the ids always end with the token
            ("logprobs", (True, False)),
        ):
            if key in given and given.pop(key) not in harmless:
                raise ValueError(f"{key} is {sampling_params[key]!r}; this server has {harmless}")
        budget = given.pop("max_tokens", None) or given.pop("max_new_tokens", None)
        stop = given.pop("stop", None) or ()
        request = Request(
            prompt=list(prompt_ids),
            budget=budget or self._budget,
            temperature=given.pop("temperature", 1.0),
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            stop_token_ids=tuple(given.pop("stop_token_ids", None) or ()),
        )
        if given:
            raise ValueError(f"this server does not know {', '.join(given)}")
        generated = await asyncio.wrap_future(self._generator.submit(request))
        return TokenOutput(
            token_ids=generated.ids,
            log_probs=generated.logprobs,
            stop_reason="aborted" if generated.reason == "aborted" else "completed",
            extra_fields={"global_steps": generated.version},
        )

    async def load(self, weights: dict[str, torch.Tensor], version: int) -> None:
        self._generator.load(weights, version)

    async def abort_all_requests(self, reject_request: bool = False) -> int:
        return self._generator.pause()

    async def resume_generation(self) -> None:
        self._generator.resume()

    async def nothing(self, *_: object, **__: object) -> None:
        """Stand for what frees and fills an accelerator's memory."""

    wake_up = sleep = clear_kv_cache = release_kv_cache = resume_kv_cache = nothing


def _server_name(replica: int) -> str:
    return f"transformers_server_{replica}"


class TransformersReplica(RolloutReplica):
    """One server in one process, however many ranks verl thinks it spans."""

    async def launch_servers(self) -> None:
        config = self.config
        server: Any = (
            ray.remote(GenerationServer)
            .options(
                name=_server_name(self.replica_rank),
                max_concurrency=self.max_concurrency,
                num_cpus=0,
            )
            .remote(
                self.model_config.path,
                config.max_model_len or config.prompt_length + config.response_length,
                config.max_num_seqs,
                config.seed + self.replica_rank,
            )
        )
        self.servers = [server]
        self._server_handle = server
        self._server_address = _server_name(self.replica_rank)
        await server.nothing.remote()


class ServerAdapter(BaseRollout):
    """The trainer's side: hands the weights to the server."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, **_: object) -> None:
        super().__init__(config, model_config, device_mesh)
        size = self.config.tensor_model_parallel_size * self.config.data_parallel_size
        replica, rank = divmod(int(os.environ["RANK"]), size)
        self._name = _server_name(replica) if rank == 0 else None

    async def resume(self, tags: list[str]) -> None:
        """Nothing to resume."""

    async def release(self) -> None:
        """Nothing to release."""

    async def update_weights(
        self,
        weights: Iterable[tuple[str, torch.Tensor]],
        global_steps: int | None = None,
        **_: object,
    ) -> None:
        # Every rank takes part in gathering them.
        gathered = {name: tensor.detach().cpu() for name, tensor in weights}
        if self._name is not None:
            await ray.get_actor(self._name).load.remote(gathered, global_steps or 0)
