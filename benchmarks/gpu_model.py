"""A step of `make gpu`: sampling, log-probs and updates of random Qwen3 models."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from gpu_record import Record, clock, need

from ctpo.objective import preset

TINY = {
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 256,
    "vocab_size": 384,
}
SMALL = {
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
}
PRECISIONS = ("float32", "bfloat16", "bfloat16 with adapters")


def train(record: Record, device: str) -> None:
    """Seconds, memory, and whether log-probs agree where the policy has not moved."""
    need("transformers")
    models = {"tiny": (TINY, 32, 256), "0.6B": (SMALL, 16, 512)}
    if device == "cpu":
        models = {"tiny": (TINY, 8, 24)}
    for name, (sizes, rows, new) in models.items():
        for precision in PRECISIONS:
            if "adapters" in precision and importlib.util.find_spec("peft") is None:
                record.add(model=name, precision=precision, left_out="peft is not installed")
                continue
            found = one(device, sizes, precision, rows, new)
            record.add(model=name, precision=precision, rows=rows, new_tokens=new, **found)


def one(device: str, sizes: dict, precision: str, rows: int, new: int) -> dict[str, object]:
    """Return what one model in one precision shows."""
    torch.manual_seed(0)
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    model = build(sizes, precision).to(device)
    cast = torch.autocast(device, torch.bfloat16, enabled=precision != "float32")
    prompts = torch.randint(3, sizes["vocab_size"], (rows, 16), device=device)
    seconds: dict[str, float] = {}

    def timed(what: str, step: Callable[[], object]):
        result = []
        seconds[what] = round(clock(device, lambda: result.append(step())) / 1e6, 4)
        return result[0]

    def sample():
        with cast, torch.no_grad():
            return model.generate(
                prompts,
                do_sample=True,
                top_k=0,
                top_p=1.0,
                min_new_tokens=new,
                max_new_tokens=new,
                output_logits=True,
                return_dict_in_generate=True,
                pad_token_id=0,
            )

    def logprobs(ids):
        with cast:
            logits = model(ids).logits[:, -new - 1 : -1]
        return pick(logits, ids[:, -new:])

    drawn = timed("generation", sample)
    ids = drawn.sequences
    steps = [pick(logits, ids[:, t - new]) for t, logits in enumerate(drawn.logits)]
    sampler = torch.stack(steps, dim=1)
    del drawn
    with torch.no_grad():
        old = timed("old log-probs", lambda: logprobs(ids))
    objective, mask = preset("ctpo"), torch.ones_like(old, dtype=torch.bool)
    advantages = torch.randn(rows, device=device)
    gap = objective(old, sampler, advantages, mask).statistics.to_columns()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5)
    micro = max(1, rows // 4)
    collected = []

    def update():
        optimizer.zero_grad()
        for low in range(0, rows, micro):
            part = slice(low, low + micro)
            out = objective(logprobs(ids[part]), old[part], advantages[part], mask[part])
            (out.mean("seq-mean-token-mean") * micro / rows).backward()
            collected.append(out.statistics)
        optimizer.step()

    for turn in range(3):
        timed(f"update {turn + 1}", update)
    before = collected[: len(collected) // 3]
    report = sum(before[1:], before[0]).on_policy_check()
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": seconds,
        "peak_memory_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2)
        if device == "cuda"
        else None,
        "on_policy": {"passes": report.passes, "worst": report.worst, "cause": report.cause},
        "sampler_log_rho_std_by_position": spread(gap),
    }


def pick(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return the log-probs of ids."""
    logits = logits.float()
    return logits.gather(-1, ids[..., None])[..., 0] - logits.logsumexp(-1)


def build(sizes: dict, precision: str):
    """Return a model with random weights; those that are trained are float32."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    model = Qwen3ForCausalLM(Qwen3Config(**sizes))
    if "adapters" in precision:
        from peft import LoraConfig, get_peft_model

        adapters = LoraConfig(r=16, target_modules="all-linear")
        model = get_peft_model(model.to(torch.bfloat16), adapters)
    return model


def spread(columns: dict) -> dict[str, float]:
    """Return the spread of log ρ_t at some positions, of what sampled against what trains."""
    found = {}
    for t, n, total, squares in zip(
        columns["position_high"],
        columns["tokens"],
        columns["log_rho_sum"],
        columns["log_rho_sumsq"],
        strict=True,
    ):
        if t in (1, 8, 64, 128, 256, 512):
            found[str(t)] = round(max(squares / n - (total / n) ** 2, 0.0) ** 0.5, 6)
    return found
