"""The log for Inspect AI: every answer once, under the names by which Inspect finds and reads it.

What needs `inspect_ai` runs in an environment of its own, by `make test-inspect`.
"""

import contextlib
import importlib.util
import json
import math
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import pytest

from ctpo.evaluation.answers import Question, Reply, graded
from ctpo.evaluation.directory import EvaluationDirectory
from ctpo.evaluation.inspect_log import write_inspect_log
from ctpo.tir.server_episodes import Transcript
from ctpo.tir.trajectory import ToolResult
from tests.evaluation import browser
from tests.evaluation.lessons import problems

INSTALLED = importlib.util.find_spec("inspect_ai") is not None
needs_inspect = pytest.mark.skipif(not INSTALLED, reason="needs inspect_ai: make test-inspect")
KINDS = ["json", pytest.param("eval", marks=needs_inspect)]
BROKEN = ToolResult("print(1)", "sandbox-failure", "", "the server died")
RUN = [
    ("reasoning", "What is asked? π\u2028<b>"),
    ("assistant", "I compute.\n```python\nprint(6*7)\n```"),
    ("tool", "```output\n42\n```"),
    ("assistant", r"So \boxed{42}"),
]
GIVEN = [
    (0, 0, {"turns": RUN, "tool_results": [ToolResult("print(6*7)", "success", "42")]}),
    (0, 1, {"turns": [("assistant", "Hm.")], "finish_reason": "length"}),
    (1, 0, {"turns": [("assistant", r'"q" \boxed{7}')], "tool_results": [BROKEN]}),
    (2, 0, {"turns": [], "finish_reason": "context"}),
    (2, 1, {"turns": [("reasoning", "Only thoughts.")]}),
]


def evaluation(place, given=GIVEN):
    with EvaluationDirectory(place, {"model": "some_model", "samples": 2}) as directory:
        asked = [Question.of("own_set", problem, 0, 0) for problem in problems()]
        directory.add_problems(asked)
        answers = [
            graded(
                Question.of("own_set", problems()[number], sample, 0),
                Reply(Transcript(tokens=5, **fields), 0.5, 1),
            )
            for number, sample, fields in given
        ]
        directory.add(answers)
    return place, answers


@pytest.fixture(params=KINDS)
def written(request, tmp_path):
    place, given = evaluation(tmp_path / "out")
    file = write_inspect_log(place)
    if file.suffix != f".{request.param}":  # beside Inspect, JSON must be asked for
        file = write_inspect_log(place, file.with_suffix(f".{request.param}"))
        file.with_suffix(".eval").unlink()
    return file, given


def test_each_answer_is_a_sample_with_its_score(tmp_path):
    place, given = evaluation(tmp_path / "out")
    log = json.loads(write_inspect_log(place, tmp_path / "log.json").read_text())
    assert list(log)[-1] == "samples"  # the rest can be read without them
    assert [(s["id"], s["epoch"]) for s in log["samples"]] == [
        (f"own_set/{one.problem_id}", one.sample + 1) for one in given
    ]
    values = [sample["scores"]["ctpo"]["value"] for sample in log["samples"]]
    assert values[:2] == ["C", "I"] and values[4] == "I"
    assert all(math.isnan(value) for value in values[2:4])
    assert [s["output"]["choices"][0]["stop_reason"] for s in log["samples"]] == [
        "stop", "max_tokens", "stop", "model_length", "stop",
    ]  # fmt: skip
    # Two answers to each problem were asked for, and not all are there.
    assert (log["status"], log["results"]["total_samples"]) == ("cancelled", 6)
    (score,) = log["results"]["scores"]
    assert (score["scored_samples"], score["unscored_samples"]) == (3, 2)
    assert score["metrics"]["accuracy"]["value"] == 0.25  # one of two, none of one


def test_the_same_directory_gives_the_same_log(tmp_path):
    place, _ = evaluation(tmp_path / "out")
    first, second = (write_inspect_log(place, tmp_path / f"{n}.json") for n in (1, 2))
    assert first.read_bytes() == second.read_bytes()


def test_what_cannot_be_written_is_refused_before_a_file_is_there(tmp_path):
    place, _ = evaluation(tmp_path / "out")
    with pytest.raises(ValueError, match="ends in .eval or .json"):
        write_inspect_log(place, tmp_path / "log.jsn")
    if not INSTALLED:
        with pytest.raises(ValueError, match="inspect_ai writes .eval files and is not installed"):
            write_inspect_log(place, tmp_path / "log.eval")
    empty, _ = evaluation(tmp_path / "empty", [])
    with pytest.raises(ValueError, match="holds no answers"):
        write_inspect_log(empty, tmp_path / "log.json")
    assert not list(tmp_path.glob("*log*"))


@needs_inspect
def test_inspect_finds_the_log_and_reads_its_header_and_its_samples(written):
    from inspect_ai.log import list_eval_logs, read_eval_log, recompute_metrics

    file, given = written
    (found,) = list_eval_logs(str(file.parent))
    assert (Path(urllib.parse.urlparse(found.name).path), found.task) == (file, "own-set")
    header = read_eval_log(str(file), header_only=True)
    assert header.samples is None
    assert (header.eval.model, header.status) == ("some_model", "cancelled")
    assert header.results.scores[0].metrics["accuracy"].value == 0.25
    log = read_eval_log(str(file))
    by_key = {(sample.id, sample.epoch): sample for sample in log.samples}
    for one in given:
        sample = by_key[f"own_set/{one.problem_id}", one.sample + 1]
        assert (sample.target, sample.scores["ctpo"].answer) == (one.gold, one.extracted)
        assert len({message.id for message in sample.messages}) == len(sample.messages)
    first = by_key["own_set/lesson-0", 1].messages
    assert [m.role for m in first] == ["system", "user", "assistant", "user", "assistant"]
    assert first[2].content[0].reasoning == RUN[0][1]
    assert first[2].text == RUN[1][1]
    recompute_metrics(log)


@needs_inspect
def test_inspects_data_frames_hold_every_sample_message_and_event(written):
    from inspect_ai.analysis import evals_df, events_df, messages_df, samples_df

    file, given = written
    place = str(file.parent)
    (row,) = evals_df(place, quiet=True).to_dict("records")
    assert (row["model"], row["total_samples"]) == ("some_model", 6)
    assert row["score_headline_value"] == 0.25
    samples = samples_df(place, quiet=True)
    assert sorted(samples["id"]) == sorted(f"own_set/{one.problem_id}" for one in given)
    messages = messages_df(place, quiet=True)
    # Two that ask and what was said; to nothing said an empty message stands.
    assert len(messages) == (2 + 3) + 3 + 3 + 3 + 3
    assert RUN[2][1] in set(messages["content"])
    events = events_df(place, quiet=True)
    assert sorted(set(events["event"])) == ["model", "score"]
    assert sum(events["event"] == "score") == len(given)


@contextlib.contextmanager
def viewer(place, log):
    """Start `inspect view` at a port that the system chooses; gives its address."""
    command = [
        str(Path(sys.executable).parent / "inspect"),
        "view",
        "start",
        "--log-dir",
        str(place),
    ]
    port = browser.free_port()
    with log.open("w") as out:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=out, stderr=out)
    try:
        while f":{port}" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


@needs_inspect
def test_inspect_view_shows_the_answers_and_the_talk(written, tmp_path):
    if not browser.CHROMIUM:
        pytest.skip("there is no chromium to look with")
    file, _ = written
    with viewer(file.parent, tmp_path / "log.txt") as url, browser.chromium(tmp_path) as page:
        log = f"{url}/#/logs/{file.name}"
        picture = tmp_path / "log.png"
        browser.screenshot(page, log, ["own_set/lesson-0", "own_set/lesson-2", "5 / 6"], picture)
        sample = f"{log}/samples/sample/own_set%2Flesson-0/1/messages"
        texts = ["Find the gcd.", "I compute.", "print(6*7)", "So"]
        browser.screenshot(page, sample, texts, tmp_path / "sample.png")
        assert picture.read_bytes() != (tmp_path / "sample.png").read_bytes()
