"""The generation that the whole runs are made with, against the model's own forward pass."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.engines.verl.cpu.generation import BatchingGenerator, Request


@pytest.fixture
def generator(tiny_model: Path) -> BatchingGenerator:
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    return BatchingGenerator(model, AutoTokenizer.from_pretrained(tiny_model), longest=96, most=5)


def _prompts(count: int) -> list[list[int]]:
    random = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 30, (count,), generator=random).tolist()
    return [torch.randint(4, 100, (n,), generator=random).tolist() for n in lengths]


def test_logprobs_are_those_of_one_forward_pass_whoever_shares_the_batch(
    generator: BatchingGenerator,
) -> None:
    prompts = _prompts(17)
    futures = [generator.submit(Request(p, budget=7 + 3 * i)) for i, p in enumerate(prompts)]
    for prompt, future in zip(prompts, futures, strict=True):
        made = future.result()
        with torch.no_grad():
            logits = generator.model(torch.tensor([prompt + made.ids])).logits[0]
        expected = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(
            -1, torch.tensor(made.ids)[:, None]
        )[:, 0]
        torch.testing.assert_close(torch.tensor(made.logprobs), expected, atol=3e-6, rtol=0)


def test_temperature_zero_takes_the_likeliest_tokens(generator: BatchingGenerator) -> None:
    prompts = _prompts(9)
    futures = [generator.submit(Request(p, budget=12, temperature=0.0)) for p in prompts]
    for prompt, future in zip(prompts, futures, strict=True):
        made = future.result()
        expected = generator.model.generate(
            torch.tensor([prompt]), max_new_tokens=12, do_sample=False
        )[0, len(prompt) :].tolist()
        assert made.ids == expected
        assert made.reason == ("length" if len(made.ids) == 12 else "stop")


def test_a_turn_ends_with_the_token_that_completes_a_stop_string(
    generator: BatchingGenerator,
) -> None:
    texts = generator._texts
    futures = [generator.submit(Request(p, budget=60, stop=["e"])) for p in _prompts(20)]
    made = [future.result() for future in futures]
    assert any("e" in texts[one.ids[-1]] for one in made)
    for one in made:
        assert not any("e" in texts[token] for token in one.ids[:-1])


def test_paused_requests_come_back_as_they_are_and_go_on_with_new_weights(
    generator: BatchingGenerator,
) -> None:
    generator.pause()
    waiting = generator.submit(Request([5, 6], budget=8))
    generator.load({n: torch.zeros_like(p) for n, p in generator.model.named_parameters()}, 3)
    assert not waiting.done()
    generator.resume()
    made = waiting.result()
    assert made.version == 3
    # All weights are zero, and so are all logits.
    uniform = -torch.tensor(float(len(generator._texts))).log()
    torch.testing.assert_close(torch.tensor(made.logprobs), uniform.expand(len(made.ids)))
    running = [generator.submit(Request([5, 6], budget=90)) for _ in range(9)]
    generator.pause()
    for future in running:
        one = future.result()
        assert one.reason in ("aborted", "stop", "length")
        assert len(one.ids) == len(one.logprobs) <= 90


def test_an_error_in_the_thread_reaches_the_caller(generator: BatchingGenerator) -> None:
    future = generator.submit(Request([10**6], budget=3))
    with pytest.raises(IndexError):
        future.result()
    with pytest.raises(IndexError):
        generator.submit(Request([1], budget=3))
