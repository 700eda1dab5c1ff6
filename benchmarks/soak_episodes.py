"""Batch after batch of tiny episodes without updates; memory, descriptors and disk stay flat.

make soak-episodes ARGS="--batches 10000"
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from sandbox_watch import held

from ctpo.tasks import generate
from ctpo.tir import run_episodes
from ctpo.tir.storage import write_trajectories
from ctpo.tir.transformers_generator import TransformersGenerator
from ctpo.training.models import load_model
from ctpo.training.policy import episode_settings, start_sandbox
from ctpo.training.recipe.loading import load_recipe
from ctpo.training.tiny.warm_start import warm_start

SMALL = [
    "model.tiny.hidden_size=32",
    "model.tiny.layers=1",
    "warm_start.problems=300",
    "warm_start.transcripts=300",
    "warm_start.target_accuracy=0.0",
    "warm_start.check_every=60",
    "rollout.max_response_tokens=80",
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=500, help="batches between two lines")
    options = parser.parse_args()
    recipe = load_recipe("tiny", SMALL)
    problems = generate(700, seed=0)
    settings = episode_settings(recipe)
    programs, started = 0, time.monotonic()
    with start_sandbox(recipe.sandbox) as sandbox, tempfile.TemporaryDirectory() as folder:
        # Warm-started, so that it calls the tool.
        model, tokenizer = load_model(warm_start(recipe, sandbox, Path(folder) / "cache"))
        generator = TransformersGenerator(model, tokenizer)
        for batch in range(1, options.batches + 1):
            at = batch * 4 % 600
            chats = [problem.messages for problem in problems[at : at + 4]]
            trajectories = run_episodes(
                generator, sandbox, tokenizer, chats, settings, temperature=1.0, seed=batch
            )
            write_trajectories(Path(folder) / "batch.parquet", trajectories, batch)
            programs += sum(len(t.tool_results) for t in trajectories)
            if batch % options.every == 0:
                files = len(list(Path(folder).rglob("*")))
                seconds = time.monotonic() - started
                print(
                    f"{batch:6} batches, {programs} programs, {seconds:5.0f} s, "
                    f"{held(os.getpid())}, {files} files",
                    flush=True,
                )


if __name__ == "__main__":
    main()
