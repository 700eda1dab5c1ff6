"""The session on vLLM, which needs a GPU: a scripted engine speaks its part of TRL's calls."""

from types import SimpleNamespace

import pytest
import torch

from ctpo.engines.trl.vllm_generator import TrlVllmGenerator
from ctpo.tir.calls import find_call


class CallStop:
    trigger = "`"

    def __call__(self, text):
        return find_call(text) is not None


class Engine:
    """Answers request by request with what it was told to, and remembers what it was asked."""

    def __init__(self, tokenizer, *answers):
        self.tokenizer = tokenizer
        self.answers = list(answers)
        self.asked = []
        self.temperature, self.max_completion_length = 1.0, 99
        self.synced = 0

    def sync_weights(self):
        self.synced += 1

    def generate(self, prompts, images, num_generations):
        self.asked.append((prompts, self.temperature, self.max_completion_length))
        completions = []
        for _ in prompts:
            text = self.answers.pop(0)
            ids = self.tokenizer.encode(text)[: self.max_completion_length]
            completions.append(ids)
        logprobs = [[[-0.5 - 0.01 * i] for i in range(len(ids))] for ids in completions]
        return prompts, completions, logprobs, None


@pytest.fixture
def make_session(tokenizer):
    def make(*answers, temperature=1.0):
        engine = Engine(tokenizer, *answers)
        trainer = SimpleNamespace(
            use_vllm=True,
            model=torch.nn.Linear(1, 1),
            vllm_generation=engine,
            processing_class=tokenizer,
            eos_token_ids=[tokenizer.eos_token_id],
            state=SimpleNamespace(global_step=3),
            _last_loaded_step=-1,
        )
        session = TrlVllmGenerator(trainer).open([[5, 6]], temperature=temperature, seed=0)
        return session, engine

    return make


def one(session, append=(), budget=200):
    (sampled,) = session.generate([0], [list(append)], [budget], CallStop())
    return sampled


CALL = "```python\nprint(1)\n```"


def test_a_turn_ends_at_the_closing_fence_and_what_lies_behind_is_dropped(make_session, tokenizer):
    session, _ = make_session(CALL + "\n")
    sampled = one(session)
    assert tokenizer.decode(sampled.ids) == CALL
    assert sampled.reason == "stop"
    assert len(sampled.logprobs) == len(sampled.ids)


def test_a_call_followed_by_eos_is_still_a_call(make_session, tokenizer):
    session, _ = make_session(CALL + "<|im_end|>")
    sampled = one(session)
    assert (tokenizer.decode(sampled.ids), sampled.reason) == (CALL, "stop")


def test_another_fence_does_not_end_the_turn(make_session, tokenizer):
    session, engine = make_session("```text\nx\n```\n", "so \\boxed{1}<|im_end|>")
    sampled = one(session)
    assert sampled.reason == "eos"
    text = "```text\nx\n```\nso \\boxed{1}<|im_end|>"
    assert tokenizer.decode(sampled.ids) == text
    assert [len(prompts) for prompts, _, _ in engine.asked] == [1, 1]
    assert engine.asked[1][0] == [[5, 6, *tokenizer.encode("```text\nx\n```\n")]]


def test_the_budget_is_the_rows_own(make_session):
    session, engine = make_session("sum sum sum sum sum sum sum sum")
    sampled = one(session, budget=3)
    assert (len(sampled.ids), sampled.reason) == (3, "length")
    assert engine.asked[0][2] == 3


def test_the_context_grows_with_what_was_sampled_and_appended(make_session, tokenizer):
    session, engine = make_session(CALL, "\\boxed{1}<|im_end|>")
    first = one(session)
    one(session, append=[7, 8])
    assert engine.asked[1][0] == [[5, 6, *first.ids, 7, 8]]


def test_weights_are_synced_once_a_step_and_the_engines_settings_are_given_back(make_session):
    session, engine = make_session(CALL, "\\boxed{1}<|im_end|>", temperature=0.0)
    one(session, budget=50)
    one(session)
    assert engine.synced == 1
    assert engine.asked[0][1:] == (0.0, 50)
    assert (engine.temperature, engine.max_completion_length) == (1.0, 99)


def test_a_trainer_without_vllm_is_refused():
    with pytest.raises(ValueError, match="use_vllm is False"):
        TrlVllmGenerator(SimpleNamespace(use_vllm=False))
