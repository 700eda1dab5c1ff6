"""Runs of a tiny transformer with one fault each, and healthy ones: what is wrong is named."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from ctpo.report.causes import find_cause
from ctpo.report.log_rows import Response

RESPONSES, LENGTH, VOCABULARY, PROMPT = 64, 48, 64, 6


def tiny(seed):
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    return Qwen2ForCausalLM(config).eval()


def plain(logits, seen):
    return logits


def top_p(share):
    def cut(logits, seen):
        ordered, places = logits.softmax(-1).sort(-1, descending=True)
        return logits.masked_fill(
            (ordered.cumsum(-1) - ordered >= share).gather(-1, places.argsort(-1)), -math.inf
        )

    return cut


def top_k(logits, seen):
    return logits.masked_fill(logits < logits.topk(8, -1).values[..., -1:], -math.inf)


def min_p(logits, seen):
    shares = logits.softmax(-1)
    return logits.masked_fill(shares < 0.05 * shares.amax(-1, keepdim=True), -math.inf)


def penalty(logits, seen):
    return torch.where(seen, torch.where(logits > 0, logits / 1.3, logits * 1.3), logits)


def heat(temperature):
    return lambda logits, seen: logits / temperature


class Lab:
    """A model, another one, prompts, and responses sampled from either."""

    def __init__(self):
        self.model, self.other = tiny(0), tiny(1)
        torch.manual_seed(2)
        self.prompt = torch.randint(VOCABULARY, (8, PROMPT)).repeat_interleave(8, 0)
        self.advantages = torch.randn(RESPONSES, dtype=torch.float64)
        self.tokens, self.recorded = self.sample()

    @torch.no_grad()
    def sample(self, warp=plain, prompt=None):
        """Return tokens and their log-probs under the distribution they were drawn from."""
        inputs = self.prompt if prompt is None else prompt
        seen = torch.zeros(RESPONSES, VOCABULARY, dtype=torch.bool).scatter(1, inputs, True)
        cache, tokens, logprobs = None, [], []
        for _ in range(LENGTH):
            out = self.model(inputs, past_key_values=cache, use_cache=True)
            cache, logits = out.past_key_values, warp(out.logits[:, -1].double(), seen)
            inputs = torch.multinomial(logits.softmax(-1), 1)
            seen = seen.scatter(1, inputs, True)
            tokens.append(inputs)
            logprobs.append(logits.log_softmax(-1).gather(1, inputs))
        return torch.cat(tokens, 1), torch.cat(logprobs, 1)

    def logprobs(self, tokens, model=None, prompt=None):
        """Return a trainer's own, in one pass."""
        prompt = self.prompt if prompt is None else prompt
        logits = (model or self.model)(torch.cat([prompt, tokens], 1)).logits
        logits = logits[:, prompt.shape[1] - 1 : -1].double()
        return logits.log_softmax(-1).gather(2, tokens[..., None])[..., 0]

    def updated(self, rate=2e-3):
        """Return the model after three updates on its responses."""
        model = copy.deepcopy(self.model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        for _ in range(3):
            ratio = (self.logprobs(self.tokens, model) - self.recorded).exp()
            loss = -(ratio * self.advantages[:, None]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model

    @torch.no_grad()
    def fault(self, name):
        """Return new and old log-probs and the tokens of a run with a fault."""
        tokens, new, old = self.tokens, self.logprobs(self.tokens), self.recorded
        kind, _, detail = name.partition(" ")
        if kind == "sampled":
            warps = {"top-p": top_p(0.9), "top-k": top_k, "min-p": min_p, "penalty": penalty}
            warps |= {"cool": heat(0.7), "hot": heat(1.3)}
            tokens, old = self.sample(warps[detail])
            new = self.logprobs(tokens)
        elif kind == "rounded":
            old = new.to({"bf16": torch.bfloat16, "fp16": torch.float16}[detail]).double()
        elif kind == "shifted":
            old = new.roll(int(detail), 1)
        elif kind == "rows":
            places = torch.arange(RESPONSES)
            places[[3, 9]] = places[[9, 3]]
            old = new[places.roll(1) if detail == "all" else places]
        elif kind == "template":
            extra = torch.full((RESPONSES, 1), 5)
            pieces = [self.prompt, extra] if detail == "behind" else [extra, self.prompt]
            old = self.logprobs(tokens, prompt=torch.cat(pieces, 1))
        elif kind == "wrong":
            old = self.logprobs(tokens, self.other)
        return new, old, tokens


@pytest.fixture(scope="module")
def lab():
    return Lab()


@pytest.fixture(scope="module")
def after(lab):
    return lab.logprobs(lab.tokens, lab.updated()).detach()


def responses(new, old, tokens, advantages=None):
    return [
        Response(
            new[i].numpy(),
            old[i].numpy(),
            np.ones(LENGTH, dtype=bool),
            None if advantages is None else np.full(LENGTH, float(advantages[i])),
            tokens[i].double().numpy(),
        )
        for i in range(RESPONSES)
    ]


@pytest.mark.parametrize("must_agree", [False, True])
@pytest.mark.parametrize(
    ("fault", "named", "words"),
    [
        ("sampled top-p", "truncated sampling", "at least 0.90, as top_p would"),
        ("sampled top-k", "truncated sampling", "one side of 0"),
        ("sampled min-p", "truncated sampling", "one side of 0"),
        ("sampled penalty", "repetition penalty", "occurred before"),
        ("sampled cool", "temperature", "temperature 0.[67]"),
        ("sampled hot", "temperature", "temperature 1.[234]"),
        ("rounded bf16", "rounding", "old log-probs are rounded to bfloat16"),
        ("rounded fp16", "rounding", "old log-probs are rounded to float16"),
        ("shifted 1", "shifted mask", "by 1 token to the left of the old"),
        ("shifted -1", "shifted mask", "by 1 token to the right of the old"),
        ("shifted 2", "shifted mask", "by 2 tokens to the left of the old"),
        ("rows two", "swapped rows", "2 of 64 rows .* row 3 fits those of row 9"),
        ("rows all", "swapped rows", "64 of 64 rows"),
        ("template behind", "template", "extra token of a chat template"),
        ("template before", "template", "extra token of a chat template"),
        ("wrong policy", "wrong policy", "not of the one that sampled"),
        ("none", "none", "agree at every token"),
    ],
)
def test_a_fault_is_named(lab, fault, named, words, must_agree):
    import re

    cause = find_cause(responses(*lab.fault(fault)), must_agree)
    assert cause.name == named, cause
    assert re.search(words, cause.words), cause.words
    assert bool(cause.advice) == (named != "none")


def test_updates_are_no_fault_and_swapped_they_are(lab, after):
    new, old = after, lab.recorded
    made = find_cause(responses(new, old, lab.tokens, lab.advantages), False)
    assert made.name == "updates" and not made.is_fault
    assert find_cause(responses(new, old, lab.tokens), False).name == "updates"
    swapped = find_cause(responses(old, new, lab.tokens, lab.advantages), False)
    assert swapped.name == "swapped columns" and "swapped" in swapped.words


@pytest.mark.parametrize("fault", ["rounded bf16", "shifted 1", "rows all"])
def test_a_fault_is_named_under_updates(lab, after, fault):
    _, old, tokens = lab.fault(fault)
    expected = find_cause(responses(*lab.fault(fault)), False).name
    assert find_cause(responses(after, old, tokens, lab.advantages), False).name == expected


@pytest.mark.parametrize("shift", [1, -1])
def test_a_mask_off_by_one_is_named_though_log_probs_agree(lab, shift):
    padding = np.zeros(4)
    padded = []
    for one in responses(lab.recorded, lab.recorded, lab.tokens):
        values = np.concatenate([padding, one.new, padding])
        mask = np.roll(values != 0, shift)
        padded.append(replace(one, new=values, old=values, mask=mask, tokens=None))
    cause = find_cause(padded, False)
    side = "right" if shift == 1 else "left"
    assert cause.name == "shifted mask" and f"one token to the {side}" in cause.words


def test_noise_that_could_be_either_is_said_to_be(lab):
    torch.manual_seed(0)
    noisy = lab.recorded + 0.005 * torch.randn_like(lab.recorded)
    cause = find_cause(responses(noisy, lab.recorded, lab.tokens), False)
    assert not cause.is_fault and "cannot tell" in cause.words
    assert find_cause(responses(noisy, lab.recorded, lab.tokens), True).name == "rounding"
