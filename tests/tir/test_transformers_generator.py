import pytest
import torch

from ctpo.tir.cache_check import ANY
from ctpo.tir.transformers_generator import TransformersGenerator

PROMPTS = [[5, 9, 40, 41], [7], [60, 61, 62, 63, 64, 65, 66], [12, 13]]


class Never:
    trigger = "`"

    def __call__(self, text):
        return False


class AfterAnE:
    trigger = "e"

    def __call__(self, text):
        return "e" in text


class AnyToken:
    trigger = ANY

    def __call__(self, text):
        return True


@pytest.fixture
def generator(model, tokenizer):
    return TransformersGenerator(model, tokenizer)


def generate(generator, prompts, budget, *, temperature=1.0, seed=0, stop=None):
    session = generator.open(prompts, temperature=temperature, seed=seed)
    rows = range(len(prompts))
    return session.generate(rows, [[]] * len(prompts), [budget] * len(prompts), stop or Never())


def full_logprobs(model, context, ids, temperature=1.0):
    """One forward pass without a cache, the oracle of the loop."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([context + ids])).logits[0].float() / temperature
    chosen = logits[len(context) - 1 : -1].log_softmax(-1)
    return chosen.gather(-1, torch.tensor(ids)[:, None])[:, 0].tolist()


def test_greedy_tokens_are_those_of_the_library(generator, model):
    for prompt, sampled in zip(
        PROMPTS, generate(generator, PROMPTS, 20, temperature=0), strict=True
    ):
        expected = model.generate(torch.tensor([prompt]), max_new_tokens=20, do_sample=False)
        assert sampled.ids == expected[0, len(prompt) :].tolist()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_a_full_forward_pass(generator, model, temperature):
    for prompt, sampled in zip(
        PROMPTS, generate(generator, PROMPTS, 30, temperature=temperature), strict=True
    ):
        oracle = full_logprobs(model, prompt, sampled.ids, temperature)
        assert sampled.logprobs == pytest.approx(oracle, abs=2e-5)


def test_answers_to_one_prompt_read_it_once_and_differ(generator, model):
    prompts = [PROMPTS[i] for i in (0, 2, 0, 1, 2, 0)]
    shapes = []
    hook = model.get_input_embeddings().register_forward_hook(
        lambda _, inputs, __: shapes.append(tuple(inputs[0].shape))
    )
    try:
        answers = generate(generator, prompts, 12)
    finally:
        hook.remove()
    assert shapes[:2] == [(3, 7), (6, 1)]  # three prompts, then a token for each answer
    for prompt, sampled in zip(prompts, answers, strict=True):
        oracle = full_logprobs(model, prompt, sampled.ids)
        assert sampled.logprobs == pytest.approx(oracle, abs=2e-5)
    assert len({tuple(answers[i].ids) for i in (0, 2, 5)}) == 3


def test_answers_that_say_the_same_go_on_from_the_same_cache(generator, model):
    """As when all answers to a problem begin with the same call."""
    prompts = [PROMPTS[0], PROMPTS[0], PROMPTS[3]]
    session = generator.open(prompts, temperature=0, seed=0)
    first = session.generate(range(3), [[]] * 3, [40] * 3, AnyToken())
    assert first[0].ids == first[1].ids and first[0].reason == "stop"
    second = session.generate(range(3), [[70, 71]] * 3, [6] * 3, Never())
    for prompt, one, two in zip(prompts, first, second, strict=True):
        oracle = full_logprobs(model, prompt + one.ids + [70, 71], two.ids)
        assert two.logprobs == pytest.approx(oracle, abs=2e-5)


def test_the_cache_carries_over_turns_of_different_length(generator, model):
    session = generator.open(PROMPTS, temperature=1.0, seed=3)
    contexts = [list(p) for p in PROMPTS]
    appends = [[], [70, 71, 72], [], [80]]
    rows = [0, 1, 2, 3]
    for turn in range(3):
        sampled = session.generate(
            rows, [appends[i] if turn else [] for i in rows], [40] * len(rows), AfterAnE()
        )
        for row, result in zip(rows, sampled, strict=True):
            if turn:
                contexts[row] += appends[row]
            oracle = full_logprobs(model, contexts[row], result.ids)
            assert result.logprobs == pytest.approx(oracle, abs=2e-5)
            contexts[row] += result.ids
        rows = [row for row, r in zip(rows, sampled, strict=True) if r.reason == "stop"]
        assert turn or len(rows) >= 2, "the test needs rows with a second turn"
        if not rows:
            break


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_are_drawn_from_the_models_distribution(generator, model, temperature):
    count = 4000
    sampled = generate(generator, [PROMPTS[0]] * count, 1, temperature=temperature)
    counts = torch.zeros(model.config.vocab_size)
    for result in sampled:
        counts[result.ids[0]] += 1
    with torch.no_grad():
        p = model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1]
    p = (p / temperature).softmax(-1)
    common = p * count > 10
    deviation = (counts - p * count)[common] / (p * count * (1 - p)).sqrt()[common]
    assert deviation.abs().max() < 5
    assert deviation.square().mean() < 1.5


def test_a_row_ends_at_its_own_budget(generator):
    session = generator.open(PROMPTS, temperature=1.0, seed=0)
    budgets = [1, 5, 9, 3]
    for budget, result in zip(
        budgets, session.generate(range(4), [[]] * 4, budgets, Never()), strict=True
    ):
        assert len(result.ids) == len(result.logprobs) <= budget
        assert result.reason in ("eos", "length")
        assert (result.reason == "length") == (len(result.ids) == budget) or result.reason == "eos"


def test_a_row_ends_at_the_first_token_that_satisfies_the_rule(generator, tokenizer):
    results = generate(generator, [PROMPTS[0]] * 64, 60, stop=AfterAnE())
    stopped = [r for r in results if r.reason == "stop"]
    assert stopped
    for result in stopped:
        assert "e" in tokenizer.decode(result.ids, skip_special_tokens=True)
        assert "e" not in tokenizer.decode(result.ids[:-1], skip_special_tokens=True)
    assert all(
        "e" not in tokenizer.decode(r.ids, skip_special_tokens=True)
        for r in results
        if r.reason != "stop"
    )


def test_eos_ends_a_row_and_is_part_of_it(generator):
    generator.eos_token_ids = list(range(3, 150))
    for result in generate(generator, PROMPTS, 50):
        assert result.reason == "eos"
        assert result.ids[-1] in generator.eos_token_ids
        assert not set(result.ids[:-1]) & set(generator.eos_token_ids)


def test_the_same_seed_gives_the_same_tokens_and_another_gives_others(generator):
    first, second, other = (generate(generator, PROMPTS, 20, seed=s) for s in (1, 1, 2))
    assert first == second
    assert first != other


def test_the_global_random_state_is_left_alone(generator):
    before = torch.random.get_rng_state()
    generate(generator, PROMPTS, 5)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_models_mode_is_restored(generator, model):
    model.train()
    generate(generator, PROMPTS, 2)
    assert model.training


def test_misuse_is_refused(generator):
    with pytest.raises(ValueError, match="at least one prompt"):
        generator.open([], temperature=1.0, seed=0)
    with pytest.raises(ValueError, match="temperature is -1"):
        generator.open(PROMPTS, temperature=-1, seed=0)
    session = generator.open(PROMPTS, temperature=1.0, seed=0)
    with pytest.raises(ValueError, match="budget of row 0 is 0"):
        session.generate([0], [[]], [0], Never())
    session.generate([0], [[]], [1], Never())
    with pytest.raises(ValueError, match="row 0 is over"):
        session.generate([0], [[]], [1], Never())


def test_the_models_own_end_of_turn_tokens_count_too(model, tokenizer):
    model.generation_config.eos_token_id = [77, 78]
    assert TransformersGenerator(model, tokenizer).eos_token_ids == [
        77,
        78,
        tokenizer.eos_token_id,
    ]


def test_sampling_is_without_dropout(model, tokenizer):
    generator = TransformersGenerator(model, tokenizer)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.9
    model.train()
    results = generate(generator, PROMPTS, 10)
    model.eval()
    for prompt, result in zip(PROMPTS, results, strict=True):
        oracle = full_logprobs(model, prompt, result.ids)
        assert result.logprobs == pytest.approx(oracle, abs=2e-5)


def test_logprobs_of_a_bfloat16_model_are_computed_in_float32(model, tokenizer):
    model = model.bfloat16()
    (result,) = generate(TransformersGenerator(model, tokenizer), [PROMPTS[0]], 1)
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1].float()
    expected = logits.log_softmax(-1)[result.ids[0]].item()
    assert result.logprobs[0] == pytest.approx(expected, abs=1e-6)
    assert result.logprobs[0] != torch.tensor(expected).bfloat16().item()
