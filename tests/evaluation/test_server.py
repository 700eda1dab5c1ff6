"""Against the real `transformers serve`: the same answers as here, and none lost or given twice."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import pytest
from transformers import AutoTokenizer

from ctpo.evaluation.asking import BatchModel, ServerModel, answer_all
from ctpo.evaluation.directory import EvaluationDirectory, read_answers
from ctpo.evaluation.summary import beside
from ctpo.tir.server.endpoint import Endpoint, EndpointError
from ctpo.tir.transformers_generator import TransformersGenerator
from ctpo.training.models import load_model
from ctpo.training.policy import episode_policy
from tests.evaluation.conftest import transformers_serve
from tests.evaluation.lessons import LESSONS, SETTINGS, questions

# A server of transformers takes a quarter of a minute to start.
pytestmark = pytest.mark.slow


def template(model):
    tokenizer = AutoTokenizer.from_pretrained(model)
    return lambda messages: tokenizer.apply_chat_template(
        [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
    )


def ask(url, model, sandbox, path, *, api="chat", asked=None, **changes):
    endpoint = Endpoint(url, str(model), api=api, retries=2)
    server = ServerModel(
        endpoint,
        sandbox,
        changes.pop("settings", SETTINGS),
        temperature=0.0,
        concurrency=2,
        template=template(model) if api == "completions" else None,
    )
    with EvaluationDirectory(path, {"api": api}) as directory:
        answer_all(asked or questions(), server, directory)
    return {answer.key: answer for answer in sorted(read_answers(path), key=lambda a: a.key)}


@pytest.fixture(scope="module")
def by_chat(served, parrot, sandbox, tmp_path_factory):
    return ask(served.url, parrot, sandbox, tmp_path_factory.mktemp("chat") / "out")


def test_a_chat_calls_the_tool_sees_its_output_and_answers(by_chat):
    for answer, (_, code, output, said, gold) in zip(by_chat.values(), LESSONS, strict=True):
        assert [turn["role"] for turn in answer.turns] == ["assistant", "tool", "assistant"]
        assert answer.turns[0]["text"] == f"I compute.\n```python\n{code}\n```"
        assert output in answer.turns[1]["text"]
        assert [call["code"] for call in answer.tool_calls] == [code]
        assert (answer.extracted, answer.gold, answer.finish_reason) == (said, gold, "answered")
        assert answer.outcome == ("right" if said == gold else "wrong")
        assert answer.tokens > 10
    assert [a.tool_calls[0]["status"] for a in by_chat.values()] == ["success", "success", "error"]
    assert beside(list(by_chat.values())).calls_per_answer == 1


def test_under_completions_a_server_says_what_the_model_says_here(
    served, parrot, sandbox, tmp_path
):
    there = ask(served.url, parrot, sandbox, tmp_path / "there", api="completions")
    model, tokenizer = load_model(parrot)
    generator = TransformersGenerator(model, tokenizer)
    policy = episode_policy(generator, tokenizer, sandbox, SETTINGS, 0.0)
    with EvaluationDirectory(tmp_path / "here", {}) as directory:
        answer_all(questions(), BatchModel(policy, 0, 2), directory)
    here = {answer.key: answer for answer in read_answers(tmp_path / "here")}
    assert len(here) == len(there) == len(LESSONS)
    for key, answer in here.items():
        assert there[key].turns == answer.turns
        assert (there[key].outcome, there[key].finish_reason) == (
            answer.outcome,
            answer.finish_reason,
        )
        assert answer.token_ids and there[key].token_ids is None


def test_the_budget_of_tokens_and_of_calls_ends_an_answer(served, parrot, sandbox, tmp_path):
    for settings, reason in (
        (dataclasses.replace(SETTINGS, max_response_tokens=3), "length"),
        (dataclasses.replace(SETTINGS, max_calls=0), "calls"),
    ):
        path = tmp_path / reason
        answers = ask(served.url, parrot, sandbox, path, settings=settings, asked=questions()[:1])
        (answer,) = answers.values()
        assert (answer.finish_reason, answer.outcome, answer.tool_calls) == (reason, "wrong", [])


def test_the_seed_and_the_temperature_reach_the_server(served, parrot):
    endpoint = Endpoint(served.url, str(parrot))

    def say(seed, temperature):
        return endpoint.generate(
            [{"role": "user", "content": "gcd?"}],
            temperature=temperature,
            seed=seed,
            max_tokens=20,
            call_end=lambda text: None,
            trigger="`",
        ).text

    assert say(1, 3.0) == say(1, 3.0)
    assert len({say(seed, 3.0) for seed in range(4)}) > 1
    assert len({say(seed, 0.0) for seed in range(3)}) == 1


def test_a_wrong_model_is_told_at_once_in_the_servers_words(served, sandbox, tmp_path):
    with pytest.raises(EndpointError, match="no-such-model"):
        ask(served.url, "no-such-model", sandbox, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Written out, so that it can be killed as a whole; it does what `ctpo eval` does.
WORK = """
import sys
from pathlib import Path
from ctpo.evaluation.asking import ServerModel, answer_all
from ctpo.evaluation.directory import EvaluationDirectory
from ctpo.sandbox import Sandbox
from ctpo.tir.server.endpoint import Endpoint
from tests.evaluation.lessons import SETTINGS, questions
url, model, path = sys.argv[1:]
with Sandbox(workers=2) as sandbox, EvaluationDirectory(Path(path), {"seed": 0}) as directory:
    endpoint = Endpoint(url, model, retries=2)
    server = ServerModel(endpoint, sandbox, SETTINGS, temperature=1.0, concurrency=3)
    answer_all(questions(samples=5), server, directory, lambda done, _: print(done, flush=True))
"""


def test_killed_at_any_moment_no_answer_is_lost_or_given_twice(served, parrot, tmp_path):
    path = tmp_path / "out"
    before: list[str] = []
    for stop_at in (1, 4, 5, 9, None):
        process = subprocess.Popen(
            [sys.executable, "-c", WORK, served.url, str(parrot), str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            start_new_session=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if stop_at is not None and int(line) >= stop_at:
                os.killpg(process.pid, signal.SIGKILL)
                break
        process.stdout.close()
        process.wait()
        if stop_at is not None:
            # A torn line, as a kill in the middle of a write leaves it.
            with (path / "answers.jsonl").open("a") as file:
                file.write('{"benchmark": "lessons", "problem_id": "les')
        kept = [answer.to_dict() for answer in read_answers(path)]
        assert [json.dumps(answer) for answer in kept][: len(before)] == before
        before = [json.dumps(answer) for answer in kept]
        assert len(kept) >= (stop_at or 15)
    assert process.returncode == 0
    keys = [answer.key for answer in read_answers(path)]
    assert sorted(keys) == sorted(q.key for q in questions(samples=5))
    seeds = {answer.key: answer.seed for answer in read_answers(path)}
    assert seeds == {q.key: q.seed for q in questions(samples=5)}


def test_a_server_that_dies_is_an_error_that_loses_nothing(served, parrot, sandbox, tmp_path):
    server = transformers_serve(parrot, tmp_path).start()
    asked = questions(samples=3)

    class Fatal(EvaluationDirectory):
        def add(self, answers):
            super().add(answers)
            if len(self.answers) == 3:
                server.kill()

    def run(kind, url):
        endpoint = Endpoint(url, str(parrot), retries=1)
        model = ServerModel(endpoint, sandbox, SETTINGS, temperature=0.0, concurrency=2)
        with kind(tmp_path / "out", {}) as directory:
            answer_all(asked, model, directory)

    with pytest.raises(EndpointError, match="times in a row"):
        run(Fatal, server.url)
    kept = list(read_answers(tmp_path / "out"))
    assert 3 <= len(kept) < 9
    run(EvaluationDirectory, served.url)  # another server goes on
    answers = list(read_answers(tmp_path / "out"))
    assert answers[: len(kept)] == kept
    assert sorted(a.key for a in answers) == sorted(q.key for q in asked)
