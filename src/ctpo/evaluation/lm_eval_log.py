"""An evaluation as lm-evaluation-harness writes one, for what reads and compares its files."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctpo.disk import write_text
from ctpo.evaluation.answers import Answer
from ctpo.evaluation.directory import read_answers, read_settings

_FILTER = "ctpo"  # where lm-eval names what took the answer out of the text


def write_lm_eval_log(place: Path, folder: Path | None = None) -> Path:
    """Write `results_TIME.json`, and `samples_TASK_TIME.jsonl` with a line for each problem.

    Each figure's error is the one over problems, as lm-eval's is. An answer without a score enters
    no figure and is null among a sample's scores. Tried with lm-eval 0.4.13.

    Args:
        place: The evaluation's directory.
        folder: Where the files go; that directory unless given.

    Returns:
        The file with the figures.

    Raises:
        FileNotFoundError: It is no evaluation's directory, or it is not finished.
        ValueError: A line cannot be read.
    """
    folder = folder or place
    settings = read_settings(place)
    summary = json.loads((place / "summary.json").read_text(encoding="utf-8"))["benchmarks"]
    # The time of a file, so that the same directory gives the same files.
    time = int((place / "summary.json").stat().st_mtime)
    stamp = datetime.fromtimestamp(time, UTC).isoformat().replace(":", "-")
    lines = (place / "problems.jsonl").read_text(encoding="utf-8").splitlines()
    rows: dict[str, dict[str, Any]] = {name: {} for name in summary}
    for problem in map(json.loads, lines):
        rows[problem["benchmark"]][problem["problem_id"]] = (problem, [])
    for answer in read_answers(place):
        rows[answer.benchmark][answer.problem_id][1].append(answer)
    folder.mkdir(parents=True, exist_ok=True)
    for name, problems in rows.items():
        samples = [_sample(at, *both) for at, both in enumerate(problems.values())]
        text = "".join(json.dumps(sample) + "\n" for sample in samples)
        write_text(folder / f"samples_{name.replace('/', '_')}_{stamp}.jsonl", text)
    results = {
        "results": {name: _figures(name, one["figures"]) for name, one in summary.items()},
        "configs": {name: {"task": name, "repeats": settings["samples"]} for name in summary},
        "versions": {name: one.get("revision") or "N/A" for name, one in summary.items()},
        "n-shot": dict.fromkeys(summary, 0),
        "higher_is_better": {n: dict.fromkeys(one["figures"], True) for n, one in summary.items()},
        "n-samples": {n: dict.fromkeys(("original", "effective"), len(rows[n])) for n in summary},
        "config": {"model": "ctpo", **settings},
        "model_name": settings["model"],
        "date": time,
    }
    file = folder / f"results_{stamp}.json"
    write_text(file, json.dumps(results, indent=2) + "\n")
    return file


def _figures(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"alias": name}
    for figure, estimate in figures.items():
        error = estimate["clustered_error"]
        found[f"{figure},{_FILTER}"] = estimate["mean"]
        found[f"{figure}_stderr,{_FILTER}"] = "N/A" if error is None else error
    return found


def _sample(number: int, problem: dict[str, Any], answers: list[Answer]) -> dict[str, Any]:
    answers = sorted(answers, key=lambda answer: answer.sample)
    prompt = json.dumps(problem["messages"])
    told = [answer.score for answer in answers if answer.score is not None]
    hashed = {"doc": json.dumps(problem), "prompt": prompt, "target": problem["gold"]}
    return {
        "doc_id": number,
        "doc": problem,
        "target": problem["gold"],
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {}}},
        "resps": [[answer.text for answer in answers]],
        "filtered_resps": [answer.extracted for answer in answers],
        "filter": _FILTER,
        "metrics": ["acc"],
        **{f"{n}_hash": hashlib.sha256(text.encode()).hexdigest() for n, text in hashed.items()},
        "acc": sum(told) / len(told) if told else None,
        "scores": [answer.score for answer in answers],
    }
