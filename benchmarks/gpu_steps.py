"""The steps of `make gpu`, each a command of its own that writes what it finds at once, as JSON.

With `--device cpu` the same steps run on tiny shapes, the kernel in Triton's interpreter: a
rehearsal, whose times mean nothing and whose results are kept from those of a GPU.

    python benchmarks/gpu_steps.py STEP --device cuda --out docs/data/gpu
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "transformers",
    "peft",
    "trl",
    "vllm",
    "verl",
    "ray",
    "pytest",
)


def machine(record, device) -> None:
    """What there is: the card, its driver, packages."""
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            record.add(package=name, version=importlib.metadata.version(name))
            continue
        record.add(package=name, version=None)
    if device == "cuda":
        query = [
            "nvidia-smi",
            "--query-gpu=name,driver_version,memory.total",
            "--format=csv,noheader",
        ]
        done = subprocess.run(query, capture_output=True, text=True, check=False)
        record.add(driver=done.stdout.strip() or done.stderr.strip())


def tests(record, device: str) -> None:
    """The tests that need a GPU."""
    from gpu_record import need

    need("pytest")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-rs",
        "-k",
        "on_a_gpu",
    ]
    done = subprocess.run(
        [*command, "tests/objective/fused"], capture_output=True, text=True, check=False
    )
    record.add(exit_code=done.returncode, last_lines=done.stdout.splitlines()[-8:])
    if done.returncode:
        raise RuntimeError(f"tests ended with {done.returncode}")


def objective_step(name: str):
    """Return a step of `gpu_objective`, which must not be imported before its device is known."""

    def step(record, device: str) -> None:
        import gpu_objective

        getattr(gpu_objective, name)(record, device)

    return step


def train(record, device: str) -> None:
    """Sampling, log-probs and updates of random Qwen3 models."""
    import gpu_model

    gpu_model.train(record, device)


ON_VLLM = """\
name = "on-vllm"
[model]
path = "{model}"
[data]
train_problems = 64
held_out_problems = 14
[rollout]
max_response_tokens = 96
{mismatch}
[optimization]
batches = 2
micro_batch = 8
entropy_coef = 0.01  # moves the weights, which vLLM must take over
[evaluation]
samples_per_problem = 1
every = 0
{vllm}
"""


def vllm(record, device: str) -> None:
    """A short run on TRL, with vLLM on the same card; rehearsed without."""
    from gpu_record import need

    from ctpo.tasks import generate
    from ctpo.training.recipe.recipe import TinyModel
    from ctpo.training.tiny import teacher
    from ctpo.training.tiny.model import build_model, build_tokenizer

    need("trl", *(["vllm"] if device == "cuda" else []))
    told = teacher.demonstrations(generate(700, seed=0), seed=0)
    tokenizer = build_tokenizer([t.messages[-1]["content"] + "\n" + t.text for t in told], 384)
    place = Path("build/gpu-model")
    build_model(TinyModel(head_size=64), tokenizer, seed=0).save_pretrained(place)
    tokenizer.save_pretrained(place)
    recipe = Path("build/gpu-vllm.toml")
    on = device == "cuda"
    text = ON_VLLM.format(
        model=place.resolve(),
        mismatch="mismatch_cap = 5.0" if on else "",
        vllm="[vllm]\ngpu_memory_share = 0.3\nmax_context_tokens = 512" if on else "",
    )
    recipe.write_text(text, encoding="utf-8")
    train_recipe(record, str(recipe), "build/gpu-vllm-run")


def verl(record, device: str) -> None:
    """A short run of a recipe on verl."""
    from gpu_record import Missing, need

    need("verl", "ray", "vllm")
    if device == "cpu":
        raise Missing("a GPU, which this rehearsal has not")
    changes = ("optimization.batches=2", "evaluation.every=0", "warm_start.target_accuracy=0.0")
    train_recipe(record, "tiny-verl", "build/gpu-verl-run", *changes)


def train_recipe(record, recipe: str, output: str, *changes: str) -> None:
    """Run a recipe as a user does and record what each batch logged."""
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-c", "from ctpo.cli import main; main()", "train", recipe]
    command += [word for change in changes for word in ("--set", change)]
    done = subprocess.run(
        [*command, "--output", output], capture_output=True, text=True, check=False
    )
    record.add(exit_code=done.returncode, last_lines=(done.stdout + done.stderr).splitlines()[-8:])
    if done.returncode:
        raise RuntimeError(f"the run ended with {done.returncode}")
    for line in Path(output, "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record.add(**json.loads(line))


STEPS: dict[str, tuple[int, str, Callable[..., None]]] = {
    "machine": (20, "the card, its driver, and which packages are there", machine),
    "fused": (
        80,
        "the fused kernel against the torch path: values, gradient, counts, no wait for the host",
        objective_step("fused"),
    ),
    "speed": (
        90,
        "the fused forward beside a copy; whole calls of torch, torch.compile, TRL, verl",
        objective_step("speed"),
    ),
    "tests": (50, "the tests that need a GPU", tests),
    "train": (
        120,
        "tiny and 0.6 B random Qwen3 in float32, in bfloat16 and with adapters over bfloat16: "
        "seconds, memory, the on-policy check and the sampler's gap by position",
        train,
    ),
    "vllm": (
        90,
        "a short run on TRL with vLLM on the same card, weights against its log-probs",
        vllm,
    ),
    "verl": (90, "the recipe tiny-verl on one GPU, with vLLM and NCCL", verl),
}
"""By name, in order of value: seconds at most, what is found out, how."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", nargs="?", choices=STEPS, help="all are listed if left out")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, default=Path("docs/data/gpu"))
    options = parser.parse_args()
    if options.step is None:
        for name, (limit, _, _) in STEPS.items():
            print(name, limit)
        return
    if options.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"
    else:
        import torch

        if not torch.cuda.is_available():
            sys.exit("there is no GPU here; --device cpu rehearses the steps")
    from gpu_record import Missing, Record

    record = Record(options.step, options.out, options.device)
    try:
        STEPS[options.step][2](record, options.device)
    except Missing as missing:
        record.end("left out", str(missing))
    except Exception as error:
        traceback.print_exc()
        record.end("failed", f"{type(error).__name__}: {str(error)[:500]}")
        sys.exit(1)
    else:
        record.end("done")
    finally:
        print(f"{options.step}: {record.values['status']} {record.values.get('words', '')}")


if __name__ == "__main__":
    main()
