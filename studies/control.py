"""Every ratio where a token is no word: each method at its best width and rate, on unused seeds.

python studies/control.py cartpole games.jsonl            # two hours on one processor
python studies/control.py melody melodies.jsonl           # one hour
python studies/control.py melody melodies.jsonl --table   # of what there is

The tasks are `examples/cartpole.py` and `examples/melody.py`. What has been run is in the file; say
the command again after anything that stopped it. Makes tables of docs/studies.md.
"""

import argparse
import itertools
import json
import math
import multiprocessing
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ctpo.objective import Objective, preset
from ctpo.studies import statistics
from ctpo.theory.tables import Table, documented

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import cartpole  # noqa: E402
import melody  # noqa: E402

METHODS = "ctpo ctpo-fixed full-sequence grpo gspo cispo pnpo minpro no-clip".split()
REFERENCE = "grpo"
# The same trials for all methods. A method without a window has one width.
WIDTHS = (1.0, 10.0, 100.0)
TASKS = {"cartpole": (cartpole, (3e-4, 1e-3, 3e-3)), "melody": (melody, (3e-3, 1e-2))}
TUNING_SEEDS, TEST_SEEDS = range(100, 102), range(10)
LAST = 5  # batches whose mean is the outcome

Setting = tuple[str, float, float, int]


def widened(method: str, width: float) -> Objective:
    """Return a preset whose window for log w is `width` times as wide as the published one."""
    if method == "no-clip":
        return preset("grpo", clip_low=1.0, clip_high=math.inf)
    published = preset(method)
    given = {
        name: getattr(part, name)
        for part in (published.window, published.surrogate)
        for name in ("eps_low", "eps_high", "dual_clip", "clip_low", "clip_high")
        if isinstance(getattr(part, name, None), float)
    }
    wider = {
        "clip_low": lambda by: 1 - (1 - by) ** width,  # of w itself, not of its logarithm
        "clip_high": lambda by: (1 + by) ** width - 1,
    }
    return preset(method, **{k: wider.get(k, lambda by: by * width)(v) for k, v in given.items()})


def played(task: str, setting: Setting) -> dict[str, object]:
    method, width, rate, seed = setting
    torch.set_num_threads(1)
    returns = list(TASKS[task][0].train(widened(method, width), rate=rate, seed=seed))
    return {
        "method": method,
        "width": width,
        "rate": rate,
        "seed": seed,
        "outcome": float(np.mean(returns[-LAST:])),
        "returns": [float(f"{value:.4g}") for value in returns],
    }


def outcomes(task: str, file: Path, settings: list[Setting], play: bool) -> dict[Setting, float]:
    """Return what came out of each setting; those that the file lacks are played if they may be."""
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    found = {(r["method"], r["width"], r["rate"], r["seed"]): r["outcome"] for r in rows}
    missing = [setting for setting in settings if setting not in found]
    if play and missing:
        with file.open("a") as lines, multiprocessing.Pool(os.cpu_count()) as pool:
            for row in pool.imap(partial(played, task), missing):
                print(json.dumps(row), file=lines, flush=True)
        return outcomes(task, file, settings, play=False)
    return {setting: found[setting] for setting in settings if setting in found}


def tables(
    task: str, file: Path, *, play: bool = False, published: bool = False
) -> tuple[Table, Table]:
    """Return the tables of the tuning and of the test; `play` runs what the file lacks.

    With `published` the test is that of the published widths, each at its best rate.
    """
    rates = TASKS[task][1]
    candidates = {
        method: list(
            itertools.product([method], WIDTHS[: 1 if method == "no-clip" else None], rates)
        )
        for method in METHODS
    }
    trials = [(*c, seed) for found in candidates.values() for c in found for seed in TUNING_SEEDS]
    tried = outcomes(task, file, trials, play)
    means = {
        c: float(np.mean([tried[(*c, seed)] for seed in TUNING_SEEDS]))
        for found in candidates.values()
        for c in found
    }
    best = {
        method: max((c for c in found if not published or c[1] == 1), key=means.__getitem__)
        for method, found in candidates.items()
    }
    by_width = [
        (
            method,
            *(
                max((means[c] for c in candidates[method] if c[1] == width), default="")
                for width in WIDTHS
            ),
        )
        for method in METHODS
    ]
    tests = [(*best[method], seed) for seed in TEST_SEEDS for method in METHODS]
    tested = outcomes(task, file, tests, play)
    scores = {
        method: np.array([tested[(*best[method], seed)] for seed in TEST_SEEDS])
        for method in METHODS
    }
    differences = {method: scores[method] - scores[REFERENCE] for method in METHODS}
    others = [method for method in METHODS if method != REFERENCE]
    corrected = statistics.holm([statistics.sign_flip(differences[method]) for method in others])
    p_values = {REFERENCE: "", **{m: f"{p:.3f}" for m, p in zip(others, corrected, strict=True)}}
    rows = []
    for method in sorted(METHODS, key=lambda m: -scores[m].mean()):
        _, width, rate = best[method]
        figures = [
            statistics.bootstrap([scores[method]], statistics.mean),
            statistics.bootstrap([scores[method]], statistics.interquartile_mean),
            statistics.bootstrap([differences[method]], statistics.mean),
        ]
        shown = [f"{f.value:.3g} ({f.low:.3g} to {f.high:.3g})" for f in figures]
        if method == REFERENCE:
            shown[-1] = ""
        clip = "none" if method == "no-clip" else f"×{width:g}"
        rows.append((method, clip, f"{rate:g}", *shown, p_values[method]))
    head = ("method", "width", "rate", "mean (95 %)", "interquartile mean", "less grpo", "p, Holm")
    widths = ("method", *(f"×{width:g}" for width in WIDTHS))
    return (
        Table(f"{task}-tuning", "each width at its best rate", widths, tuple(by_width)),
        Table(
            f"{task}-published" if published else task,
            f"each method at its {'published width' if published else 'best'}, on ten other seeds",
            head,
            tuple(rows),
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("file", type=Path)
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--published", action="store_true", help="test published widths")
    parser.add_argument("--write", type=Path, help="a page with markers for the tables")
    args = parser.parse_args()
    found = tables(args.task, args.file, play=not args.table, published=args.published)
    for table in found:
        print(f"{table.title}\n\n{table.markdown()}")
    if args.write:
        args.write.write_text(documented(args.write.read_text(), found))


if __name__ == "__main__":
    main()
