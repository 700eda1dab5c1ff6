"""Does the estimator with less variance learn faster? The theory's measures beside what came out.

python studies/theory.py docs/data/studies/theory.jsonl            # an hour on one processor
python studies/theory.py docs/data/studies/theory.jsonl --figure docs/images/studies-theory.png

Each method's run of seed 0 in `table2-tiny.toml` is run again with all its checkpoints, at the rate
and window that the tuning chose. Between two of them, early and late, a batch of 64 updates apart,
the objectives of all methods are measured as `ctpo theory measure` does. Each is then placed by the
geometric mean of its variance, over that of the full ratio on the same answers, and by how many
answers its gradient is really made of; and by the accuracy that ten seeds of it came to.

Expected, before any run: accuracy falls with variance. Spearman's ρ over nine methods tells.
"""

import argparse
import json
import multiprocessing
import os
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ctpo.commands import cache_directory
from ctpo.report import style
from ctpo.studies import statistics
from ctpo.studies.cells import Cell, choose, result_cells
from ctpo.studies.results import read_results, trials
from ctpo.studies.study import load_study
from ctpo.theory.tables import Table, documented
from ctpo.training.listening import Quiet
from ctpo.training.measuring.runs import MeasureRequest, measure_run
from ctpo.training.run import run
from ctpo.training.run_directory import RunDirectory

FOLDER = Path(__file__).parent
STUDY = load_study(FOLDER / "table2-tiny.toml")
RUNS = read_results(FOLDER.parent / "docs/data/studies/table2-tiny.parquet")
POINTS = (2, 8)  # batches after which the old policy is taken; the new one is the next
SEED = 0


def cells() -> list[Cell]:
    """Return the test's runs of one seed, each with the recipe that the tuning chose."""
    chosen = choose(STUDY, trials(STUDY, RUNS))
    return [cell for cell in result_cells(STUDY, FOLDER, chosen) if cell.seed == SEED]


def measured(runs: Path, setting: tuple[str, int]) -> dict[str, object]:
    method, point = setting
    objectives = {cell.method: cell.recipe.objective.build() for cell in cells()}
    request = MeasureRequest(
        runs / method, point, (1,), answers=12, reference_answers=1, objectives=objectives
    )
    (distance,) = measure_run(request, Quiet()).distances
    qualities = {q.name: q for q in distance.qualities}
    found = {
        name: {
            "over_full": qualities[name].over_full.value,
            "effective": qualities[name].effective,
            "clipped": distance.clipped[name],
        }
        for name in objectives
    }
    return {"run": method, "after": point, "kl": distance.kl, "objectives": found}


def trained(runs: Path, method: str) -> None:
    """Run a method's cell again, or go on with it: the same bits, with its checkpoints kept."""
    (cell,) = (cell for cell in cells() if cell.method == method)
    kept = {"checkpoint_every": 1, "keep_checkpoints": None}
    optimization = cell.recipe.optimization.model_copy(update=kept)
    recipe = cell.recipe.model_copy(update={"optimization": optimization})
    path = runs / method
    place = RunDirectory.open(path) if path.exists() else RunDirectory.create(path, recipe)
    run(place.recipe, place, cache=cache_directory())
    # The points of training are those of the run that was compared, not of one like it.
    before = next(r for r in RUNS if (r.phase, r.method, r.seed) == ("test", method, SEED))
    last = json.loads((path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["kl/k3"] == before.rows[-1]["kl"], f"{method}: another run than the study's"


def results(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def measure(file: Path, runs: Path) -> None:
    runs.mkdir(parents=True, exist_ok=True)
    done = {(row["run"], row["after"]) for row in results(file)}
    settings = [(m, p) for m in STUDY.methods for p in POINTS if (m, p) not in done]
    methods = list(dict.fromkeys(method for method, _ in settings))
    # A process each: what a run changes of torch is gone with it.
    with multiprocessing.Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        pool.map(partial(trained, runs), methods, chunksize=1)
        with file.open("a") as lines:
            for row in pool.imap(partial(measured, runs), settings):
                print(json.dumps(row), file=lines, flush=True)


def placed(file: Path) -> dict[str, tuple[float, float, float]]:
    """Return variance over the full ratio's, effective share and accuracy of each method."""
    rows, found = results(file), {}
    for method in STUDY.methods:
        own = [row["objectives"][method] for row in rows]
        outcomes = [r.outcome(STUDY) for r in RUNS if r.phase == "test" and r.method == method]
        found[method] = (
            float(np.exp(np.mean([np.log(x["over_full"]) for x in own]))),
            float(np.mean([x["effective"] for x in own])),
            float(np.mean(outcomes)),
        )
    return found


def rank_correlation(file: Path, measure: int) -> tuple[float, float]:
    """Return Spearman's ρ over methods, of a measure with the outcome, and p by permutations."""
    of = list(placed(file).values())
    ranks = [np.argsort(np.argsort([x[i] for x in of])) for i in (measure, 2)]
    rho = np.corrcoef(*ranks)[0, 1]
    random = np.random.default_rng(0)
    others = [np.corrcoef(random.permutation(ranks[0]), ranks[1])[0, 1] for _ in range(10_000)]
    return float(rho), float(np.mean(np.abs(others) >= abs(rho) - 1e-9))


def table(file: Path) -> Table:
    rows = []
    for method, (variance, effective, outcome) in placed(file).items():
        own = [row["objectives"][method]["clipped"] for row in results(file)]
        rows.append(
            (
                method,
                f"{variance:.2f}",
                f"{effective:.2f}",
                f"{np.mean(own):.0%}",
                f"{100 * outcome:.1f}",
            )
        )
    columns = ("method", "variance / full", "ESS of gradients", "without gradient", "accuracy")
    return Table("theory-runs", "measured quality and outcome", columns, tuple(rows))


def figure(file: Path) -> Figure:
    drawn = Figure(figsize=(8, 3.6), layout="constrained")
    left, right = drawn.subplots(1, 2, sharey=True)
    for number, (axes, label) in enumerate(
        ((left, "variance over that of the full ratio"), (right, "effective share of the answers"))
    ):
        rho, p = rank_correlation(file, number)
        axes.set_title(f"Spearman ρ {rho:+.2f}, p = {p:.2f}", fontsize=9)
        axes.set_xlabel(label)
        for method, values in placed(file).items():
            scores = [r.outcome(STUDY) for r in RUNS if r.phase == "test" and r.method == method]
            mean = statistics.bootstrap([np.array(scores)], statistics.mean)
            ends = [[100 * (mean.value - mean.low)], [100 * (mean.high - mean.value)]]
            axes.errorbar(values[number], 100 * mean.value, ends, fmt="o", color=style.BLUE, ms=4)
            axes.annotate(
                method, (values[number], 100 * mean.value), (4, 3), textcoords="offset points"
            ).set_fontsize(7)
    left.set_xscale("log")
    left.set_ylabel("accuracy over training, %, ten seeds")
    return drawn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs/theory"), help="for the runs")
    parser.add_argument("--figure", type=Path, help="draw what there is, and run nothing")
    parser.add_argument("--write", type=Path, help="a page with markers for the table")
    args = parser.parse_args()
    if args.figure is None and args.write is None:
        measure(args.file, args.runs)
    found = table(args.file)
    print(f"{found.title}\n\n{found.markdown()}")
    if args.figure:
        figure(args.file).savefig(args.figure, dpi=150)
    if args.write:
        args.write.write_text(documented(args.write.read_text(), [found]))


if __name__ == "__main__":
    main()
