"""An evaluation as lm-evaluation-harness writes one, for what reads and compares its files.

`results_TIME.json` has the figures under lm-eval's names, `samples_TASK_TIME.jsonl` a line for each
problem with all responses to it. Tried with `lm_eval.utils.make_table` of 0.4.13.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctpo.disk import write_text
from ctpo.evaluation.answers import Answer
from ctpo.evaluation.directory import read_answers, read_settings

# Ours: what is right is decided by the grader or a reward, not by a filter of the text.
_FILTER = "ctpo"


def write_lm_eval_log(place: Path, folder: Path | None = None) -> Path:
    """Write a finished evaluation's figures and answers as lm-eval does.

    Each figure's error is the one over problems, as lm-eval's is. An answer without a score enters
    no figure and has null among a sample's scores.

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
    counts = {name: one["problems"] for name, one in summary.items()}
    results = {
        "results": {name: _figures(name, one["figures"]) for name, one in summary.items()},
        "group_subtasks": {name: [] for name in summary},
        "configs": {name: {"task": name, "repeats": settings["samples"]} for name in summary},
        "versions": {name: one.get("revision") or "N/A" for name, one in summary.items()},
        "n-shot": dict.fromkeys(summary, 0),
        "higher_is_better": {
            name: dict.fromkeys(one["figures"], True) for name, one in summary.items()
        },
        "n-samples": {name: {"original": n, "effective": n} for name, n in counts.items()},
        "config": {"model": "ctpo", "model_args": {"pretrained": settings["model"]}, **settings},
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
    """A line; responses are in the order of their sample's number."""
    answers = sorted(answers, key=lambda answer: answer.sample)
    prompt = json.dumps(problem["messages"])
    told = [answer.score for answer in answers if answer.score is not None]
    return {
        "doc_id": number,
        "doc": problem,
        "target": problem["gold"],
        "arguments": [[prompt, {}]],
        "resps": [[answer.text for answer in answers]],
        "filtered_resps": [answer.extracted for answer in answers],
        "filter": _FILTER,
        "metrics": ["acc"],
        "doc_hash": _hash(json.dumps(problem)),
        "prompt_hash": _hash(prompt),
        "target_hash": _hash(problem["gold"]),
        "acc": sum(told) / len(told) if told else None,
        "scores": [answer.score for answer in answers],
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
