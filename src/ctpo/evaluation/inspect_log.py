"""An evaluation as a log of Inspect AI, for its viewer and for what reads its logs.

Where `inspect_ai` is installed, its own writer writes the `.eval` file. Where it is not, the same
content is written as JSON in the format's definition (version 2,
https://inspect.aisi.org.uk/eval-logs.html), which Inspect reads as well: what precedes the samples
there can be read without them.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctpo.evaluation.answers import Answer
from ctpo.evaluation.directory import read_answers, read_settings
from ctpo.evaluation.evaluate import Evaluation

_SCORER = "ctpo"
# Inspect's own letters; NaN is its sign for what has no score and enters no mean.
_VALUES = {"right": "C", "wrong": "I", "could-not-tell": float("nan")}
_STOPS = {
    "length": "max_tokens",
    "context": "model_length",
    "filter": "content_filter",
    "calls": "unknown",
    "failed": "unknown",
}
Fields = dict[str, Any]


def write_inspect_log(place: Path, file: Path | None = None) -> Path:
    """Write the answers of an evaluation's directory as one Inspect log.

    A tool's output stands as a user's message, because the calls are text here and have no ids.
    Events have the time of the evaluation's start: no times are kept of an episode's turns. JSON is
    written an answer at a time; Inspect's own writer wants all of them in memory.

    Args:
        place: The evaluation's directory.
        file: The log, ending in `.eval` or `.json`; else a file in that directory with the name
            that Inspect looks for, `.eval` where `inspect_ai` is installed.

    Returns:
        The log.

    Raises:
        FileNotFoundError: It is no evaluation's directory, or lacks a file.
        ValueError: A line cannot be read, there are no answers, or `file` is an `.eval` without
            `inspect_ai` or ends in something else.
    """
    installed = importlib.util.find_spec("inspect_ai") is not None
    if file is not None and file.suffix not in (".eval", ".json"):
        raise ValueError(f"{file}: the name of an Inspect log ends in .eval or .json")
    if file is not None and file.suffix == ".eval" and not installed:
        raise ValueError(
            f"{file}: inspect_ai writes .eval files and is not installed here; a name that ends in "
            ".json needs nothing, and `inspect log convert --to eval` makes an .eval of it"
        )
    settings = read_settings(place)
    lines = (place / "problems.jsonl").read_text(encoding="utf-8").splitlines()
    problems = {(p["benchmark"], p["problem_id"]): p for p in map(json.loads, lines)}
    header = _header(place, settings, problems)
    if file is None:
        file = place / f"{_name(header['eval'])}.{'eval' if installed else 'json'}"
    samples = (
        _sample(answer, problems[answer.benchmark, answer.problem_id], header["eval"])
        for answer in read_answers(place)
    )
    aside = file.with_name(f".unfinished.{file.name}")
    if file.suffix == ".eval":
        from inspect_ai.log import EvalLog, write_eval_log

        log = EvalLog.model_validate({**header, "samples": list(samples)})
        write_eval_log(log, str(aside), format="eval")
    else:
        _write_json(aside, header, samples)
    aside.replace(file)
    return file


def _write_json(file: Path, header: Fields, samples: Iterator[Fields]) -> None:
    with file.open("w", encoding="utf-8") as out:
        # The closing brace is taken off: samples come last.
        out.write(json.dumps(header, indent=1)[:-2] + ',\n "samples": [\n')
        for number, sample in enumerate(samples):
            out.write((",\n" if number else "") + json.dumps(sample))
        out.write("\n ]\n}\n")


def _header(place: Path, settings: Fields, problems: Mapping[Any, Any]) -> Fields:
    """Everything but the samples, in the order in which Inspect reads it."""
    written = unscored = tokens = 0
    scores = []
    for answer in read_answers(place):
        written += 1
        unscored += answer.score is None
        tokens += answer.tokens
        scores.append((answer.benchmark, answer.problem_id, answer.score))
    if not written:
        raise ValueError(f"{place} holds no answers")
    found = Evaluation.of(scores).overall.to_dict()
    metrics = {
        name: {"name": name, "value": value}
        for name, value in (("accuracy", found["mean"]), ("stderr", found["clustered_error"]))
        if value is not None
    }
    # The times of files, so that the same directory gives the same log.
    begun, ended = (
        datetime.fromtimestamp(int((place / name).stat().st_mtime), UTC).isoformat()
        for name in ("settings.json", "answers.jsonl")
    )
    names = ",".join(dict.fromkeys(benchmark for benchmark, _ in problems))
    wanted = len(problems) * settings["samples"]
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:22]
    return {
        "version": 2,
        "status": "success" if written == wanted else "cancelled",
        "eval": {
            "eval_id": key,
            "run_id": key,
            "task_id": key,
            "created": begun,
            "task": names,
            "dataset": {"name": names, "samples": len(problems)},
            "model": settings["model"],
            "config": {"epochs": settings["samples"]},
            "metadata": settings,
        },
        "plan": {"name": "plan", "steps": [], "config": {}},
        "results": {
            "total_samples": wanted,
            "completed_samples": written,
            "scores": [
                {
                    "name": _SCORER,
                    "scorer": _SCORER,
                    "scored_samples": written - unscored,
                    "unscored_samples": unscored,
                    "metrics": metrics,
                }
            ],
        },
        "stats": {
            "started_at": begun,
            "completed_at": ended,
            "model_usage": {settings["model"]: {"output_tokens": tokens, "total_tokens": tokens}},
        },
    }


def _name(spec: Fields) -> str:
    """The name that Inspect gives a log, by which it finds it again in a directory."""
    when = spec["created"].replace(":", "-")
    return f"{when}_{re.sub(r'[^A-Za-z0-9.-]+', '-', spec['task'])}_{spec['task_id']}"


def _sample(answer: Answer, problem: Mapping[str, Any], spec: Fields) -> Fields:
    name, model = f"{answer.benchmark}/{answer.problem_id}", spec["model"]
    target = [answer.gold, *answer.also] if answer.also else answer.gold
    asked = [{"role": m["role"], "content": m["content"]} for m in problem["messages"]]
    messages = [
        {"id": f"{name}/{answer.sample}/{number}", **message}
        for number, message in enumerate([*asked, *_said(answer)])
    ]
    score = {
        "value": _VALUES[answer.outcome],
        "answer": answer.extracted,
        "explanation": f"{answer.outcome} ({answer.path}): {answer.reason}",
        "reason": None if answer.score is not None else answer.outcome,
    }
    turns = [n for n in range(len(asked), len(messages)) if messages[n]["role"] == "assistant"]
    events = [_call(messages[:n], messages[n], "stop", model) for n in turns]
    if not events:  # no turn was given: what was asked is shown all the same
        events = [_call(messages, {"role": "assistant", "content": ""}, "unknown", model)]
    output = events[-1]["output"]
    output["choices"][0]["stop_reason"] = _STOPS.get(answer.finish_reason, "stop")
    usage = {"output_tokens": answer.tokens, "total_tokens": answer.tokens}
    output["usage"] = usage
    events.append({"event": "score", "score": score, "target": target, "scorer": _SCORER})
    for number, event in enumerate(events):
        event["uuid"] = f"{name}/{answer.sample}/event-{number}"
        event |= {"timestamp": spec["created"], "working_start": 0}
    return {
        "id": name,
        "epoch": answer.sample + 1,  # Inspect counts from 1
        "input": messages[: len(asked)],
        "target": target,
        "messages": messages,
        "output": output,
        "scores": {_SCORER: score},
        "events": events,
        "metadata": {
            "seed": answer.seed,
            "finish_reason": answer.finish_reason,
            "tool_calls": answer.tool_calls,
        },
        "model_usage": {model: usage},
        "total_time": answer.seconds,
    }


def _call(before: list[Fields], said: Fields, stop: str, model: str) -> Fields:
    """A turn of the model's as Inspect's event, from which `messages_df` takes the messages."""
    choice = {"message": said, "stop_reason": stop}
    return {
        "event": "model",
        "model": model,
        "input": before,
        "tools": [],
        "tool_choice": "none",
        "config": {},
        "output": {"model": model, "choices": [choice]},
    }


def _said(answer: Answer) -> Iterator[Fields]:
    """The turns as messages; what was thought precedes what was said in the same message."""
    thoughts: list[Fields] = []
    for turn in answer.turns:
        if turn["role"] == "reasoning":
            thoughts.append({"type": "reasoning", "reasoning": turn["text"]})
        elif turn["role"] == "assistant":
            text = turn["text"]
            content = [*thoughts, {"type": "text", "text": text}] if thoughts else text
            yield {"role": "assistant", "content": content}
            thoughts = []
        else:
            yield {"role": "user", "content": turn["text"]}
    if thoughts:
        yield {"role": "assistant", "content": thoughts}
