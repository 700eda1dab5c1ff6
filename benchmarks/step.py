"""A whole training step: TRL's `GRPOTrainer` beside `CTPOTrainer`, in turns, on one thread.

Same tiny model, which has learned to call the tool, same prompts to the token, same sandbox, same
limits; 64 answers in four updates at a learning rate of 0, so that both go on sampling from one
policy. Once with a tool – TRL's own tool loop beside our episodes – and once without. What counts
is the ratio; the seconds are this machine's, at this moment.

python benchmarks/step.py     # 5 minutes
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import trl
from datasets import Dataset
from transformers import PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from ctpo.engines.trl import CTPOConfig, CTPOTrainer
from ctpo.engines.trl.episodes import EpisodeRollout
from ctpo.sandbox import Sandbox
from ctpo.tir import EpisodeSettings
from ctpo.tir.protocols import HERMES
from ctpo.training.models import quiet_libraries
from ctpo.training.recipe.recipe import TinyModel, WarmStart
from ctpo.training.tiny.model import build_model, build_tokenizer
from ctpo.training.tiny.supervised import learn

PROMPTS, RESPONSES, UPDATES, TOKENS, CALLS = 8, 8, 4, 128, 2
PHASES = ("generation", "tools", "old log-probs", "updates")
# The template as models have it, and the one in which what was said stays as it was.
GIVEN, PRESERVING = (
    (Path(trl.__file__).parent / f"chat_templates/{name}.jinja").read_text()
    for name in ("qwen3", "qwen3_training")
)

sandbox = Sandbox()
seconds: dict[str, float] = defaultdict(float)


@contextmanager
def clock(phase: str):
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[phase] += time.perf_counter() - started


def python(code: str) -> str:
    """Run a program.

    Args:
        code: The program.

    Returns:
        What it prints.
    """
    with clock("tools"):
        return sandbox.run(code).stdout.strip()  # as our episodes show it


def questions(count: int, seed: int) -> list[tuple[str, str, int]]:
    """Return what is asked, the program that answers it, and the answer."""
    chance = random.Random(seed)
    pairs = [(chance.randrange(10, 100), chance.randrange(10, 100)) for _ in range(count)]
    return [(f"What is {a} times {b}?", f"print({a}*{b})", a * b) for a, b in pairs]


def messages(question: str, program: str, answer: int) -> list[dict]:
    call = {"type": "function", "function": {"name": "python", "arguments": {"code": program}}}
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "name": "python", "content": str(answer)},
        {"role": "assistant", "content": f"It is {answer}, so the answer is \\boxed{{{answer}}}."},
    ]


def policy():
    """Return a tiny model that calls the tool and then answers, and its tokenizer."""
    told = [messages(*asked) for asked in questions(600, seed=1)]
    probe = build_tokenizer(["a"], 140)
    probe.chat_template = PRESERVING

    def text(talk: list[dict], **more) -> str:
        return probe.apply_chat_template(talk, tools=[python], tokenize=False, **more)

    tokenizer = build_tokenizer([text(talk) for talk in told], 512)
    tokenizer.chat_template = GIVEN
    model = build_model(TinyModel(), tokenizer, seed=0)
    examples = []
    for talk in told:
        ids, labels = [], []
        for end in (2, 4):  # each of the policy's turns, after all that goes before it
            before = tokenizer.encode(text(talk[: end - 1], add_generation_prompt=True))
            after = tokenizer.encode(text(talk[:end]).rstrip("\n"))
            ids, labels = after, labels + [-100] * (len(before) - len(labels))
            labels += after[len(labels) :]
        examples.append((ids, labels))
    settings = WarmStart(check_every=120, decay_steps=80, max_steps=200)
    learn(model, examples, settings, tokenizer.pad_token_id, lambda: 1.0, lambda *_: None)
    return model.eval(), tokenizer


def timed(trainer: GRPOTrainer, rollout: EpisodeRollout | None) -> None:
    """Let a trainer count where its time goes."""
    trainer.remove_callback(PrinterCallback)
    prepare, generate = trainer._prepare_inputs, trainer._generate

    def generated(*args, **kwargs):
        with clock("generated"):
            return generate(*args, **kwargs)

    def prepared(*args, **kwargs):
        with clock("prepared"):
            return prepare(*args, **kwargs)

    trainer._generate, trainer._prepare_inputs = generated, prepared
    trainer.rollout_of_ours = rollout


def one_step(trainer: GRPOTrainer) -> dict[str, float]:
    """Collect one batch of rollouts and take its updates; return seconds by phase."""
    seconds.clear()
    rollout = trainer.rollout_of_ours
    before = rollout.times.tools if rollout else 0.0
    with clock("whole"):
        trainer.train()
    tools = seconds["tools"] + (rollout.times.tools - before if rollout else 0.0)
    return {
        "generation": seconds["generated"] - tools,
        "tools": tools,
        "old log-probs": seconds["prepared"] - seconds["generated"],
        "updates": seconds["whole"] - seconds["prepared"],
        "whole": seconds["whole"],
    }


def tokens_and_calls(trainer: GRPOTrainer) -> tuple[float, float]:
    metrics = trainer.state.log_history
    last = next(row for row in reversed(metrics) if "completions/mean_length" in row)
    calls = last.get("tools/call_frequency", float("nan"))
    if trainer.rollout_of_ours is not None:
        found = trainer.rollout_of_ours.trajectories
        calls = statistics.mean(len(t.tool_results) for t in found)
    return last["completions/mean_length"], calls


def trainers(model, tokenizer, place: str) -> dict[tuple[str, bool], GRPOTrainer]:
    asked = questions(256, seed=2)
    probe = [{"role": "user", "content": "?"}]
    head = tokenizer.apply_chat_template(probe, tools=[python], tokenize=False)
    system = head.split("<|im_start|>system\n")[1].split("<|im_end|>")[0]
    plain = [[{"role": "user", "content": question}] for question, _, _ in asked]
    whole = [[{"role": "system", "content": system}, *prompt] for prompt in plain]
    for short, long in zip(plain, whole, strict=True):
        one = tokenizer.apply_chat_template(short, tools=[python], tokenize=False)
        assert one == tokenizer.apply_chat_template(long, tokenize=False)
    answers = [str(answer) for _, _, answer in asked]
    options = {
        "learning_rate": 0.0,
        "max_steps": UPDATES,
        "per_device_train_batch_size": PROMPTS * RESPONSES // UPDATES,
        "steps_per_generation": UPDATES,
        "num_generations": RESPONSES,
        "max_completion_length": TOKENS,
        "logging_steps": UPDATES,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "log_level": "error",
        "beta": 0.0,
        "bf16": False,
        "gradient_checkpointing": False,
    }

    def right(completions, answer, **_):
        last = [talk[-1]["content"] if talk else "" for talk in completions]
        return [float(f"\\boxed{{{a}}}" in text) for text, a in zip(last, answer, strict=True)]

    made: dict[tuple[str, bool], GRPOTrainer] = {}
    for tools in (True, False):
        data = Dataset.from_dict({"prompt": plain if tools else whole, "answer": answers})
        more = {"max_tool_calling_iterations": CALLS} if tools else {}
        made["trl", tools] = GRPOTrainer(
            model,
            right,
            GRPOConfig(f"{place}/trl-{tools}", **options, **more),
            data,
            processing_class=tokenizer,
            tools=[python] if tools else None,
        )
        timed(made["trl", tools], None)
        data = Dataset.from_dict({"prompt": whole, "answer": answers})
        settings = EpisodeSettings(TOKENS, CALLS, protocol=HERMES)
        rollout = EpisodeRollout(sandbox, settings, seed=0) if tools else None
        ours = CTPOTrainer(
            model,
            rollout.reward if rollout else right,
            CTPOConfig(f"{place}/ctpo-{tools}", **options),
            data,
            processing_class=tokenizer,
            rollout_func=rollout,
            on_rollout=rollout.scored if rollout else None,
        )
        timed(ours, rollout)
        made["ctpo", tools] = ours
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write every round's seconds here")
    args = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    with sandbox, tempfile.TemporaryDirectory() as place:
        sides = trainers(*policy(), place)
        rounds = defaultdict(list)
        for number in range(args.rounds + 1):
            for side, trainer in sides.items():
                found = one_step(trainer)
                if number:  # the first is slower: memory, caches
                    rounds[side].append(found)
        print("| | tool | s a step |" + " | ".join(PHASES) + " | tokens an answer | calls |")
        print("|---" * (len(PHASES) + 5) + "|")
        for (name, tools), found in rounds.items():
            middle = {p: statistics.median(f[p] for f in found) for p in ("whole", *PHASES)}
            length, calls = tokens_and_calls(sides[name, tools])
            shown = " | ".join(f"{middle[p]:.2f}" for p in PHASES)
            print(
                f"| {name} | {'yes' if tools else 'no'} | {middle['whole']:.2f} | {shown} | "
                f"{length:.0f} | {calls:.2f} |"
            )
        for tools in (True, False):
            for phase in ("whole", *PHASES):
                pairs = zip(rounds["trl", tools], rounds["ctpo", tools], strict=True)
                ratios = [a[phase] / b[phase] for a, b in pairs if b[phase]]
                if ratios:
                    print(
                        f"{'with' if tools else 'without'} the tool, TRL's {phase} over ours: "
                        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
                    )
    if args.json:
        args.json.write_text(
            json.dumps([{"side": n, "tool": t, "rounds": r} for (n, t), r in rounds.items()])
        )


if __name__ == "__main__":
    main()
