"""Does CTPO leave good tokens behind? A hypothesis, and the remedy that it suggests.

python studies/floor.py docs/data/studies/floor.jsonl            # half an hour on one processor
python studies/floor.py docs/data/studies/floor.jsonl --table    # of what there is

A token with A > 0 whose prefix has become unlikely has a weight near 0: nothing would pull it back.
If so, more of CTPO's good tokens end a batch less likely than they began than of GRPO's, most of
all late in a sequence, and a floor under their weight helps: at the window's lower edge, or at 1.
Each runs on both tasks of `control.py` at the published windows and the rate CTPO was given there.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ctpo.objective import ClippedSurrogate, preset
from ctpo.studies import statistics
from ctpo.theory.tables import Table, documented

sys.path.insert(0, str(Path(__file__).parent))
from control import LAST, TASKS, TEST_SEEDS  # noqa: E402

RATE = {"cartpole": 3e-3, "melody": 1e-2}
UPDATES = {"cartpole": 64, "melody": 32}  # on a batch, as the examples have it
QUARTER = 0.25  # of a sequence, which is called its beginning and its end
SHARES = ("light", "fell_beginning", "fell_end")

Setting = tuple[str, str, int]


@dataclass(frozen=True)
class FlooredSurrogate(ClippedSurrogate):
    """PPO's clip; for A > 0 no log weight counts as less than `floor`, or the window's low edge."""

    floor: float | None = None

    def terms(self, tokens, window):
        low = window.bounds(tokens.factors).low if self.floor is None else self.floor
        raised = tokens.log_weight.maximum(torch.as_tensor(low, dtype=torch.float32))
        weight = torch.where(tokens.advantages > 0, raised, tokens.log_weight)
        return super().terms(tokens._replace(log_weight=weight), window)


METHODS = {
    "ctpo": preset("ctpo"),
    "ctpo, floor at the window": replace(preset("ctpo"), surrogate=FlooredSurrogate()),
    "ctpo, floor at 1": replace(preset("ctpo"), surrogate=FlooredSurrogate(floor=0.0)),
    "grpo": preset("grpo"),
}


class Watched:
    """An objective that looks at the good tokens, A > 0, in the last update of each batch."""

    def __init__(self, method: str, updates: int):
        self.objective, self.updates, self.calls = METHODS[method], updates, 0
        self.seen: list[list[float]] = []

    def __call__(self, new, old, advantages, mask, **options):
        self.calls += 1
        if self.calls % self.updates == 0:
            step = torch.where(mask, new.detach() - old, 0.0)
            place = mask.cumsum(1) / mask.sum(1, keepdim=True)
            good = mask & (advantages[:, None] > 0)
            beginning, end = good & (place <= QUARTER), good & (place > 1 - QUARTER)
            fell = (step < 0).float()
            light = (step.cumsum(1) < np.log(0.5)).float()
            looked_at = light[end], fell[beginning], fell[end]
            self.seen.append([share.mean().item() for share in looked_at])
        return self.objective(new, old, advantages, mask, **options)


def played(setting: Setting) -> dict[str, object]:
    task, method, seed = setting
    torch.set_num_threads(1)
    watched = Watched(method, UPDATES[task])
    returns = list(TASKS[task][0].train(watched, rate=RATE[task], seed=seed))
    row = dict(zip(("task", "method", "seed"), setting, strict=True))
    shares = dict(zip(SHARES, np.nanmean(watched.seen, axis=0).tolist(), strict=True))
    return {**row, "outcome": float(np.mean(returns[-LAST:])), **shares}


def results(file: Path) -> dict[Setting, dict[str, float]]:
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    return {(row["task"], row["method"], row["seed"]): row for row in rows}


def play(file: Path) -> None:
    done = results(file)
    settings = [s for s in itertools.product(TASKS, METHODS, TEST_SEEDS) if s not in done]
    with file.open("a") as lines, multiprocessing.Pool(os.cpu_count()) as pool:
        for row in pool.imap(played, settings):
            print(json.dumps(row), file=lines, flush=True)


def table(file: Path) -> Table:
    """Return what came out, each line over ten seeds; differences are paired by seed."""
    done, rows = results(file), []
    for task in TASKS:
        of = {m: [done[task, m, seed] for seed in TEST_SEEDS] for m in METHODS}
        outcomes = {m: np.array([row["outcome"] for row in of[m]]) for m in METHODS}
        others = [method for method in METHODS if method != "ctpo"]
        p = statistics.holm([statistics.sign_flip(outcomes[m] - outcomes["ctpo"]) for m in others])
        p_of = dict(zip(others, p, strict=True))
        for method in METHODS:
            figures = [outcomes[method], outcomes[method] - outcomes["ctpo"]]
            shown = [statistics.bootstrap([f], statistics.mean) for f in figures]
            mean, less = (f"{f.value:.3g} ({f.low:.3g} to {f.high:.3g})" for f in shown)
            shares = [f"{100 * np.mean([row[name] for row in of[method]]):.1f}" for name in SHARES]
            compared = (less, f"{p_of[method]:.3f}") if method in p_of else ("", "")
            rows.append((task, method, mean, *compared, *shares))
    head = ("task", "method", "mean (95 %)", "less ctpo", "p, Holm")
    shares = ("end: ρ < ½, %", "beginning: fell, %", "end: fell, %")
    return Table(
        "floor", "good tokens, and a floor under their weight", (*head, *shares), tuple(rows)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--write", type=Path, help="a page with markers for the table")
    args = parser.parse_args()
    if not args.table:
        play(args.file)
    found = table(args.file)
    print(f"{found.title}\n\n{found.markdown()}")
    if args.write:
        args.write.write_text(documented(args.write.read_text(), [found]))


if __name__ == "__main__":
    main()
