"""Calls are found also where a tokenizer holds their tags as special tokens."""

import copy
from types import SimpleNamespace

import pytest
import torch

from ctpo.engines.trl.vllm_generator import TrlVllmGenerator
from ctpo.tir import EpisodeSettings, run_episodes
from ctpo.tir.protocols import HERMES
from ctpo.tir.transformers_generator import TransformersGenerator, TransformersSession
from ctpo.tir.turn_text import turn_text

CALL = '<tool_call>\n{"name": "python", "arguments": {"code": "print(6*7)"}}\n</tool_call>'
TURNS = (f"Let me see. {CALL}", "So \\boxed{42}<|im_end|>")
SETTINGS = EpisodeSettings(max_response_tokens=400, max_calls=2, protocol=HERMES)
PROMPT = [{"role": "user", "content": "What is 6 * 7?"}]
TAGS = ["<tool_call>", "</tool_call>"]


@pytest.fixture(params=["special", "added", "plain"])
def speaking(request, tokenizer):
    """A tokenizer that has the tags as special tokens, as tokens like others, or not at all."""
    made = copy.deepcopy(tokenizer)
    if request.param != "plain":
        made.add_tokens(TAGS, special_tokens=request.param == "special")
    return made


def check(trajectory):
    (result,) = trajectory.tool_results
    assert (result.code, result.status) == ("print(6*7)", "success")
    assert trajectory.turns[0].text == TURNS[0]
    assert trajectory.finish_reason == "answered"
    assert trajectory.assistant_text.endswith("So \\boxed{42}")


def test_on_the_models_own_loop(speaking, model, sandbox, monkeypatch):
    model.resize_token_embeddings(len(speaking))
    script = [i for text in TURNS for i in speaking.encode(text, add_special_tokens=False)]
    generator = TransformersGenerator(model, speaking)

    def say(self, logits):
        return torch.tensor([script.pop(0)]), torch.zeros(1)

    monkeypatch.setattr(TransformersSession, "_sample", say)
    (trajectory,) = run_episodes(
        generator, sandbox, speaking, [PROMPT], SETTINGS, temperature=1.0, seed=0
    )
    check(trajectory)


def test_on_vllm(speaking, sandbox):
    answers = [speaking.encode(text, add_special_tokens=False) for text in TURNS]

    def generate(prompts, images, num_generations):
        ids = answers.pop(0)
        return prompts, [ids], [[[-0.5]] * len(ids)], None

    trainer = SimpleNamespace(
        use_vllm=True,
        model=torch.nn.Linear(1, 1),
        vllm_generation=SimpleNamespace(
            generate=generate, temperature=1.0, max_completion_length=9, sync_weights=lambda: None
        ),
        processing_class=speaking,
        eos_token_ids=[speaking.eos_token_id],
        state=SimpleNamespace(global_step=0),
        _last_loaded_step=-1,
    )
    (trajectory,) = run_episodes(
        TrlVllmGenerator(trainer), sandbox, speaking, [PROMPT], SETTINGS, temperature=1.0, seed=0
    )
    check(trajectory)


def test_other_special_tokens_are_no_text(speaking):
    ids = speaking.encode(f"<|im_start|>a {CALL} b<|im_end|>", add_special_tokens=False)
    assert turn_text(speaking, ids) == f"a {CALL} b"
