import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ctpo.tasks import generate
from ctpo.training.recipe.recipe import TinyModel
from ctpo.training.tiny import teacher
from ctpo.training.tiny.model import build_model


def test_what_is_encoded_decodes_to_itself(tokenizer):
    for transcript in teacher.demonstrations(generate(70, seed=9), seed=9):
        text = transcript.messages[0]["content"] + "\n" + transcript.text
        assert tokenizer.decode(tokenizer.encode(text)) == text
    for text in ("  indented\n\ttab?", "x = {'a': [1, 2]}", "\\frac{1}{2} ~ $5_b$ @ #"):
        ids = tokenizer.encode(text.replace("\t", ""))
        assert tokenizer.decode(ids) == text.replace("\t", "")


def test_numbers_are_cut_into_chunks_of_at_most_two_digits(tokenizer):
    for number in ("7", "42", "123", "90817263"):
        pieces = [tokenizer.decode([i]) for i in tokenizer.encode(number)]
        assert pieces == [number[i : i + 2] for i in range(0, len(number), 2)]


def test_what_is_beyond_the_alphabet_is_the_unknown_token_and_not_lost(tokenizer):
    assert tokenizer.unk_token_id in tokenizer.encode("π")


def test_the_default_model_has_half_a_million_parameters(tokenizer):
    model = build_model(TinyModel(), tokenizer, seed=0)
    assert model.num_parameters() == pytest.approx(5e5, rel=0.1)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    matrix = model.model.layers[0].mlp.up_proj.weight
    assert matrix.std().item() == pytest.approx(0.08, rel=0.03)


def test_a_saved_model_is_loaded_like_any_other(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    ids = torch.tensor([tokenizer.encode("Find the gcd of 12 and 18.")])
    assert again.encode("Find the gcd of 12 and 18.") == ids[0].tolist()
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    chat = [{"role": "user", "content": "Hi"}]
    assert again.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_the_seed_decides_the_weights(tokenizer):
    first, again, other = (build_model(TinyModel(), tokenizer, seed=s) for s in (1, 1, 2))
    weights = [m.lm_head.weight for m in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
