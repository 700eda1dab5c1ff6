"""An evaluation as a log of Inspect AI, for its viewer and for what reads its logs.

Written by hand from the format's definition (version 2, https://inspect.aisi.org.uk/eval-logs.html),
so that the package is not needed to write one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctpo.evaluation.answers import Answer
from ctpo.evaluation.directory import read_answers

_SCORER = "ctpo"
# Inspect's own letters; what could not be told is N, "no answer", and its reason says so.
_LETTERS = {"right": "C", "wrong": "I", "could-not-tell": "N"}
_STOPS = {"length": "max_tokens", "context": "model_length"}


def write_inspect_log(place: Path, file: Path) -> None:
    """Write the answers of an evaluation's directory as one Inspect log in JSON.

    Answers are read one at a time. A tool's output stands as a user's message, because the calls
    are text here and have no ids.

    Args:
        place: The evaluation's directory.
        file: The log; `inspect view` expects its name to end in `.json`.

    Raises:
        FileNotFoundError: It is no evaluation's directory, or lacks a file.
        ValueError: A line cannot be read, or there are no answers.
    """
    answers = read_answers(place)
    first = next(answers, None)
    if first is None:
        raise ValueError(f"{place} holds no answers")
    settings = json.loads((place / "settings.json").read_text())
    lines = (place / "problems.jsonl").read_text().splitlines()
    problems = {(p["benchmark"], p["problem_id"]): p for p in map(json.loads, lines)}
    wanted = len(problems) * settings["samples"]
    # The time of the first file, so that the same directory gives the same log.
    begun = datetime.fromtimestamp((place / "settings.json").stat().st_mtime, UTC)
    written = 0
    aside = file.with_name(f".{file.name}.unfinished")
    with aside.open("w", encoding="utf-8") as out:
        # The parts before the samples, with the closing brace taken off.
        head = {"version": 2, "eval": _spec(settings, problems, begun)}
        out.write(json.dumps(head, indent=1)[:-2] + ',\n "samples": [\n')
        answer: Answer | None = first
        while answer is not None:
            sample = _sample(answer, problems[answer.benchmark, answer.problem_id], settings)
            out.write((",\n" if written else "") + json.dumps(sample))
            written += 1
            answer = next(answers, None)
        tail = {
            "status": "success" if written == wanted else "started",
            "results": {"total_samples": wanted, "completed_samples": written, "scores": []},
        }
        out.write("\n ],\n" + json.dumps(tail, indent=1)[2:] + "\n")
    aside.replace(file)


def _spec(
    settings: Mapping[str, Any], problems: Mapping[Any, Any], begun: datetime
) -> dict[str, Any]:
    names = list(dict.fromkeys(benchmark for benchmark, _ in problems))
    return {
        "created": begun.isoformat(timespec="seconds"),
        "task": ",".join(names),
        "dataset": {"name": ",".join(names), "samples": len(problems)},
        "model": settings["model"],
        "config": {"epochs": settings["samples"]},
        "metadata": dict(settings),
    }


def _sample(
    answer: Answer, problem: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    asked = [{"role": m["role"], "content": m["content"]} for m in problem["messages"]]
    said = [
        {"role": "assistant" if turn["role"] == "assistant" else "user", "content": turn["text"]}
        for turn in answer.turns
    ]
    return {
        "id": f"{answer.benchmark}/{answer.problem_id}",
        "epoch": answer.sample + 1,  # Inspect counts from 1
        "input": asked,
        "target": answer.gold,
        "messages": [*asked, *said],
        "output": {
            "model": settings["model"],
            "choices": [
                {
                    "message": {"role": "assistant", "content": answer.text},
                    "stop_reason": _STOPS.get(answer.finish_reason, "stop"),
                }
            ],
            "usage": {"output_tokens": answer.tokens},
        },
        "scores": {
            _SCORER: {
                "value": _LETTERS[answer.outcome],
                "answer": answer.extracted,
                "explanation": f"{answer.outcome} ({answer.path}): {answer.reason}",
            }
        },
        "metadata": {
            "seed": answer.seed,
            "finish_reason": answer.finish_reason,
            "tool_calls": answer.tool_calls,
        },
        "total_time": answer.seconds,
    }
