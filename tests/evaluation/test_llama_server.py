"""Against llama.cpp's server, if it is installed: other code, other tokenizer, the same answers."""

import dataclasses
import importlib.util
import sys

import pytest

from ctpo.evaluation.directory import read_answers
from ctpo.tir.endpoint import Endpoint, EndpointError
from tests.evaluation.conftest import ServerProcess
from tests.evaluation.gguf_file import write_gguf
from tests.evaluation.lessons import LESSONS, problems, questions
from tests.evaluation.test_server import ask

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def llama(parrot, tmp_path_factory):
    for needed in ("llama_cpp", "gguf", "sse_starlette"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"llama.cpp's server needs {needed}: pip install 'ctpo[llama]'")
    place = tmp_path_factory.mktemp("llama")
    write_gguf(parrot, place / "parrot.gguf")
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(place / "parrot.gguf")]
    command += ["--model_alias", "parrot"]
    # Else a request ends the one before it, and two side by side end each other.
    command += ["--n_ctx", "512", "--n_threads", "1", "--interrupt_requests", "false"]
    server = ServerProcess(command, place / "log").start()
    yield server.url
    server.kill()


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_the_answers_are_those_of_the_model(llama, parrot, sandbox, tmp_path, api):
    endpoint = Endpoint(llama, "parrot")
    assert endpoint.models() == ["parrot"]
    path = tmp_path / api
    # The name is the server's; the template is the model's own.
    answers = ask(llama, parrot, sandbox, path, api=api, asked=questions())
    for answer, (_, code, output, said, gold) in zip(answers.values(), LESSONS, strict=True):
        assert [call["code"] for call in answer.tool_calls] == [code]
        assert output in answer.turns[1]["text"]
        assert (answer.extracted, answer.finish_reason) == (said, "answered")
        assert answer.outcome == ("right" if said == gold else "wrong")
    assert len(list(read_answers(path))) == len(problems())


def test_a_context_that_does_not_fit_is_an_outcome(llama, parrot, sandbox, tmp_path):
    (long, *_) = questions()
    message = {"role": "user", "content": "Find it." * 600}
    problem = dataclasses.replace(long.problem, messages=(message,))
    answers = ask(
        llama,
        parrot,
        sandbox,
        tmp_path / "long",
        asked=[dataclasses.replace(long, problem=problem)],
    )
    (answer,) = answers.values()
    assert (answer.finish_reason, answer.outcome) == ("context", "could-not-tell")


def test_a_wrong_field_ends_with_the_servers_own_words(llama):
    endpoint = Endpoint(llama, "parrot", extra={"temperature": "warm"}, retries=1)
    # This server calls it a fault of its own, status 500, so it is tried again first.
    with pytest.raises(EndpointError, match="float_parsing"):
        endpoint.generate(
            [{"role": "user", "content": "x"}],
            temperature=0,
            seed=0,
            max_tokens=4,
            call_end=lambda text: None,
            trigger="`",
        )
