"""What TRL asks of the model is what the loss takes it for: plain samples, positions of tokens."""

import logging

import pytest
import torch
import transformers
from transformers import GenerationConfig

from ctpo.engines.trl import CTPOTrainer
from ctpo.engines.trl.model_calls import HARMLESS

# A value for each field under which other tokens would be drawn, or `generate` would fail.
WARPING = {
    "begin_suppress_tokens": list(range(3, 200)),
    "diversity_penalty": 0.5,
    "early_stopping": True,
    "encoder_no_repeat_ngram_size": 1,
    "encoder_repetition_penalty": 3.0,
    "epsilon_cutoff": 0.01,
    "eta_cutoff": 0.01,
    "exponential_decay_length_penalty": (1, 3.0),
    "forced_bos_token_id": 9,
    "forced_eos_token_id": 9,
    "guidance_scale": 3.0,
    "length_penalty": 2.0,
    "max_length": 3,
    "min_length": 90,
    "min_new_tokens": 90,
    "min_p": 0.9,
    "no_repeat_ngram_size": 1,
    "num_beams": 3,
    "num_return_sequences": 2,
    "penalty_alpha": 0.5,
    "prompt_lookup_num_tokens": 3,
    "renormalize_logits": True,
    "repetition_penalty": 5.0,
    "sequence_bias": [[[5], 30.0]],
    "suppress_tokens": list(range(3, 200)),
    "temperature": 9.0,
    "token_healing": True,
    "top_h": 0.2,
    "top_k": 2,
    "top_p": 0.1,
    "typical_p": 0.1,
}


def own(**settings):
    """Not by the constructor, which refuses what a file may hold."""
    configuration = GenerationConfig(pad_token_id=0)
    for name, value in settings.items():
        setattr(configuration, name, value)
    return configuration


@pytest.fixture
def sample(make_trainer, model):
    """Return a function from settings of the model's own generation configuration to samples."""
    trainer = make_trainer(model, max_completion_length=8)
    trainer.rollout_func = None
    trainer.model.train()
    inputs = [{"prompt": row["prompt"]} for row in trainer.train_dataset for _ in range(4)][:8]

    def draw(**settings):
        model.generation_config = configuration = own(**settings)
        torch.manual_seed(3)
        completions = trainer._generate_and_score_completions(inputs)["completion_ids"].tolist()
        assert model.generation_config is configuration, "the model keeps its own"
        return completions

    return draw


def test_no_field_of_a_models_generation_config_changes_what_is_drawn(sample):
    fields = set(GenerationConfig().to_dict()) - HARMLESS
    assert {"min_p", "top_h", "suppress_tokens"} <= fields & set(WARPING)
    plain = sample()
    changed = [name for name in sorted(WARPING) if sample(**{name: WARPING[name]}) != plain]
    assert not changed


def test_every_field_is_either_harmless_or_left_out():
    """A field that a new version brings is left out; those kept are still there to be kept."""
    assert HARMLESS - {"low_memory"} <= set(GenerationConfig().to_dict()) | {
        "_commit_hash",
        "_from_model_config",
        "prefill_chunk_size",
    }
    assert not HARMLESS & set(WARPING)


def test_what_is_left_out_is_said(make_trainer, model, caplog):
    model.generation_config = own(suppress_tokens=[7], min_p=0.1)
    with caplog.at_level(logging.WARNING, logger="ctpo.engines.trl.trainer"):
        make_trainer(model)
    assert "suppress_tokens = [7]" in caplog.text


def test_nothing_is_said_of_a_model_that_comes_with_nothing(make_trainer, model, tmp_path, caplog):
    model.save_pretrained(tmp_path)
    reloaded = type(model).from_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, logger="ctpo.engines.trl.trainer"):
        make_trainer(reloaded)
    assert "generation_config" not in caplog.text


ABSOLUTE: dict[str, dict] = {
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256},
    "GPTNeo": {
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 2,
        "attention_types": [[["global"], 2]],
        "max_position_embeddings": 256,
    },
    "GPTBigCode": {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256},
    "OPT": {
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
    },
    "Llama": {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
}


WITHOUT_DROPOUT = {"attn_pdrop": 0, "embd_pdrop": 0, "resid_pdrop": 0, "dropout": 0}


@pytest.mark.parametrize("name", ABSOLUTE)
def test_padding_on_the_left_does_not_move_a_token(make_trainer, tokenizer, name):
    torch.manual_seed(0)
    sizes = ABSOLUTE[name] | {"vocab_size": len(tokenizer), "pad_token_id": 0} | WITHOUT_DROPOUT
    config = getattr(transformers, f"{name}Config")(**sizes)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    batches = []

    class Spy(CTPOTrainer):
        def _finish(self, batch):
            result = super()._finish(batch)
            batches.append(result)
            return result

    make_trainer(
        model.eval(),
        trainer=Spy,
        per_device_train_batch_size=8,
        steps_per_generation=2,
        max_steps=1,
        learning_rate=0.0,
    ).train()
    widths = set()
    for batch in batches:
        for row in range(len(batch["prompt_ids"])):
            prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
            answer = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
            widths.add(len(prompt) - batch["prompt_ids"].shape[1])
            ids = torch.cat([prompt, answer])[None]
            with torch.no_grad():
                plain = model.eval()(input_ids=ids).logits[0].float().log_softmax(-1)
            expected = plain[len(prompt) - 1 : -1].gather(-1, answer[:, None])[:, 0]
            given = batch["old_per_token_logps"][row][: len(answer)]
            assert torch.allclose(given, expected, atol=1e-4)
    assert min(widths) < 0, "some prompt has to be padded"
