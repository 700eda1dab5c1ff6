"""The parts of a recipe that one engine alone reads: how it uses the machines it runs on.

What a recipe means does not depend on them, so a recipe may have both and run on either engine.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ctpo.training.recipe.model import Section


class Vllm(Section):
    """Of TRL: generate with vLLM on the same GPU; left out, the training model generates."""

    gpu_memory_share: float = Field(0.4, gt=0, lt=1)
    """Share of the GPU's memory for vLLM: more means more answers side by side."""
    max_context_tokens: int = Field(10_000, ge=1)
    """Longest prompt and response together."""
    sleep: bool = True
    """Give vLLM's memory to the updates while it does not generate."""


class Verl(Section):
    """Of verl: the machines, and how training and generation share them."""

    nodes: int = Field(1, ge=1)
    """Machines."""
    gpus_per_node: int = Field(8, ge=1)
    """GPUs of each. All train, and all generate."""
    rollout_engine: str = "vllm"
    """What generates: `vllm`, `sglang`, or another that verl knows by that name."""
    tensor_parallel: int = Field(1, ge=1)
    """GPUs that share one copy of the model while it generates."""
    gpu_memory_share: float = Field(0.6, gt=0, lt=1)
    """Share of each GPU's memory for generation."""
    max_prompt_tokens: int = Field(2048, ge=1)
    """Longest prompt. A longer one is refused before anything starts; none is left out."""
    strategy: Literal["fsdp", "fsdp2"] = "fsdp2"
    """How weights, gradients and the optimizer's state are spread over the GPUs."""
    offload: bool = False
    """Keep weights and the optimizer's state in main memory while they are not needed."""
    packed: bool = True
    """Compute on sequences without padding, which needs flash-attention."""
    sequence_parallel: int = Field(1, ge=1)
    """GPUs that share each sequence in training (Ulysses); needs `packed`."""
    workers: int = Field(8, ge=1)
    """Processes that run episodes, and as many that grade."""
    loggers: list[str] = Field(default_factory=list)
    """Where verl's metrics go besides the run directory: `console`, `wandb`, `tensorboard`, ..."""
    overrides: list[str] = Field(default_factory=list)
    """Further settings of verl in Hydra's form, such as
    `actor_rollout_ref.rollout.max_num_seqs=512`. What a field of the recipe decides is refused."""
