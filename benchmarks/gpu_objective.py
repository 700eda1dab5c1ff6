"""Steps of `make gpu`: the fused kernel against the torch path, and how fast both are."""

from __future__ import annotations

import contextlib
import importlib.util
import tempfile
from collections.abc import Callable
from unittest import mock

import torch
from gpu_record import Record, medians, need

from ctpo.objective import preset
from ctpo.objective.fused import dispatch

BYTES_PER_TOKEN = 25
"""Of the fused forward: two log-probs and the mask are read, loss, slope, log r, log w written."""


def batch(rows: int, columns: int, device: str):
    """Return logprobs, old_logprobs, advantages and mask, with holes."""
    generator = torch.Generator().manual_seed(0)
    old = -torch.rand(rows, columns, generator=generator)
    logprobs = old + 0.03 * torch.randn(rows, columns, generator=generator)
    mask = torch.rand(rows, columns, generator=generator) > 0.1
    advantages = torch.randn(rows, generator=generator)
    return [tensor.to(device) for tensor in (logprobs, old, advantages, mask)]


def fusing(device: str):
    """Let the kernel be taken on a CPU too, where Triton interprets it."""
    if device == "cuda":
        return contextlib.nullcontext()
    return mock.patch.object(dispatch, "supports", dispatch.covers)


def call(objective, inputs, leaf, **more):
    """One call of the objective with its backward."""
    leaf.grad = None
    out = objective(leaf, *inputs[1:], **more)
    out.mean("seq-mean-token-mean").backward()
    return out


def captured(device: str, step: Callable[[], object]) -> Callable[[], object]:
    """Return a replay of the step's kernels, without the launches, on a GPU."""
    if device == "cpu":
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def fused(record: Record, device: str) -> None:
    """The fused kernel against the reference: values, gradient, statistics, no sync."""
    need("triton")
    shapes = [(1, 40)] if device == "cpu" else [(64, 8192), (1, 65536), (2048, 2048)]
    for name in ("ctpo", "grpo", "pnpo"):
        objective = preset(name)
        for rows, columns in shapes:
            inputs = batch(rows, columns, device)
            leaves = [inputs[0].clone().requires_grad_() for _ in range(2)]
            there = call(objective, inputs, leaves[0])
            with fusing(device):
                call(objective, inputs, leaves[1], fused=True)  # compiles
                if device == "cuda":
                    torch.cuda.synchronize()
                    torch.cuda.set_sync_debug_mode("error")
                try:
                    here = call(objective, inputs, leaves[1], fused=True)
                finally:
                    if device == "cuda":
                        torch.cuda.set_sync_debug_mode("default")
            gap = (here.per_token - there.per_token).abs().max().item()
            slope = (leaves[0].grad - leaves[1].grad).abs().max().item()
            counts = int((here.statistics.tokens != there.statistics.tokens).sum())
            record.add(
                objective=name, rows=rows, columns=columns, largest_gap=gap,
                largest_gap_of_gradient=slope, largest_gradient=leaves[0].grad.abs().max().item(),
                bins_counted_otherwise=counts, waits_for_host=False if device == "cuda" else None,
            )  # fmt: skip


def trls(inputs, device: str) -> Callable[[], None]:
    """TRL's own loss with its metrics, in a trainer whose model says the given log-probs."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from ctpo.training.recipe.recipe import TinyModel
    from ctpo.training.tiny.model import build_model, build_tokenizer

    logprobs, old, advantages, mask = inputs
    entropies = torch.zeros_like(old)

    class Given(GRPOTrainer):
        def _get_per_token_logps_and_entropies(self, *_, **__):
            return logprobs, entropies, None

    tokenizer = build_tokenizer(["a"], 140)
    with tempfile.TemporaryDirectory() as place:
        settings = GRPOConfig(
            place, per_device_train_batch_size=2, num_generations=2, report_to="none",
            use_cpu=device == "cpu", bf16=False, epsilon_high=0.28,
        )  # fmt: skip
        trainer = Given(
            build_model(TinyModel(), tokenizer, seed=0),
            lambda completions, **_: [0.0] * len(completions),
            settings,
            Dataset.from_list([{"prompt": "1"}] * 2),
            processing_class=tokenizer,
        )
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    tokens = torch.ones_like(old, dtype=torch.long)
    given = {
        "prompt_ids": tokens[:, :1], "prompt_mask": tokens[:, :1],
        "completion_ids": tokens, "completion_mask": mask.long(),
        "old_per_token_logps": old, "advantages": advantages, "num_items_in_batch": mask.sum(),
    }  # fmt: skip

    def step() -> None:
        logprobs.grad = None
        trainer._compute_loss(trainer.model, given).backward()

    return step


def speed(record: Record, device: str) -> None:
    """Forward beside a copy; whole calls: fused, torch, torch.compile, TRL's and verl's losses."""
    objective, rounds = preset("ctpo"), 1 if device == "cpu" else 30
    shapes = [(1, 40)] if device == "cpu" else [(64, 8192), (8, 8192), (1, 8192), (2048, 2048)]
    triton = importlib.util.find_spec("triton") is not None
    for rows, columns in shapes:
        inputs = batch(rows, columns, device)
        leaf = inputs[0].clone().requires_grad_()
        if triton:
            given = (inputs[0], inputs[1], inputs[2][:, None], inputs[3])
            size = rows * columns * BYTES_PER_TOKEN
            source = torch.zeros(size // 2, dtype=torch.uint8, device=device)
            target = torch.empty_like(source)

            def forward(given=given) -> object:
                return dispatch.forward(objective.ratio, objective.window, *given)

            def copy(source=source, target=target) -> object:
                return target.copy_(source)

            kernels = {"fused forward": captured(device, forward), "copy": captured(device, copy)}
            record.add(rows=rows, columns=columns, kernels_us=medians(device, kernels, rounds))

        compiled = torch.compile(objective.__call__)
        steps: dict[str, Callable[[], object]] = {
            "torch": lambda i=inputs, x=leaf: call(objective, i, x),
            "without statistics": lambda i=inputs, x=leaf: call(objective, i, x, statistics=False),
            "torch.compile": lambda i=inputs, x=leaf, f=compiled: call(f, i, x),
        }
        if triton:
            steps["fused"] = lambda i=inputs, x=leaf: call(objective, i, x, fused=True)
        if importlib.util.find_spec("verl") is not None:
            from objective import verls

            for name in ("vanilla", "gspo"):
                steps[f"verl {name}"] = verls(name, (leaf, *inputs[1:]))
        if importlib.util.find_spec("trl") is not None:
            steps["TRL grpo"] = trls((leaf, *inputs[1:]), device)
        failed = {}
        with fusing(device):
            for name in list(steps):
                try:
                    steps[name]()
                except Exception as error:  # what one cannot do is a result too
                    failed[name] = f"{type(error).__name__}: {str(error)[:300]}"
                    del steps[name]
            times = medians(device, steps, rounds)
        record.add(rows=rows, columns=columns, whole_call_us=times, failed=failed)
