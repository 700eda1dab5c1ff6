"""The sampler's log-probabilities are one plain forward pass's, for every architecture it takes."""

import warnings

import pytest
import torch
import transformers

from ctpo.tir.transformers_generator import TransformersGenerator, UnsupportedModel

SIZE = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 1,
    "bos_token_id": 2,
    "pad_token_id": 0,
}
# What looks back at most eight tokens is wrong as soon as columns are taken for positions.
NEAR = {"sliding_window": 8}
GEMMA = SIZE | NEAR | {"head_dim": 8, "query_pre_attn_scalar": 8}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
IMAGES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
SERVED = {
    "Llama": SIZE,
    "Mistral": SIZE | NEAR,
    "Qwen2": SIZE | NEAR | {"use_sliding_window": True, "max_window_layers": 2},
    "Qwen3Moe": SIZE | EXPERTS | {"head_dim": 8, "num_experts": 4},
    "Gemma2": GEMMA,
    "Gemma3Text": GEMMA,
    "Gemma3": {"text_config": GEMMA, "vision_config": IMAGES},
    "Gemma3nText": GEMMA
    | {
        "intermediate_size": [48] * 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "vocab_size_per_layer_input": 96,
        "hidden_size_per_layer_input": 8,
        "altup_num_inputs": 2,
        "laurel_rank": 4,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "GptOss": SIZE | NEAR | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "Phi3": SIZE | NEAR,
    "Cohere2": SIZE | NEAR,
    "Olmo3": SIZE | NEAR,
    "Llama4Text": SIZE
    | {
        "head_dim": 8,
        "attention_chunk_size": 8,
        "intermediate_size_mlp": 48,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
    },
    "DeepseekV3": SIZE
    | EXPERTS
    | {
        "num_key_value_heads": 4,
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
    },
    "GPT2": {"vocab_size": 96, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 512},
    "OPT": {
        "vocab_size": 96,
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    },
    "Bloom": {"vocab_size": 96, "hidden_size": 32, "n_layer": 4, "n_head": 4},
    "Falcon": {
        "vocab_size": 96,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "alibi": True,
    },
}
REFUSED = {
    "Mamba": {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
    "Rwkv": {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2, "context_length": 64},
    "RecurrentGemma": {
        "vocab_size": 96,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "head_dim": 8,
        "lru_width": 32,
    },
    "Jamba": SIZE
    | {
        "use_mamba_kernels": False,
        "num_experts": 2,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
    },
    "Lfm2": SIZE | {"layer_types": ["conv", "full_attention"] * 2},
    "Qwen3Next": SIZE
    | EXPERTS
    | {
        "head_dim": 8,
        "num_experts": 4,
        "shared_expert_intermediate_size": 16,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    },
}
PROMPTS = [[5, 9, 40, 41], [7], [60, 61, 62, 63, 64, 65, 66] * 3, [12, 13]]
OUTPUTS = [[11, 12, 14], [70] * 19, [], [80, 81, 82, 83, 84]]


class Letters:
    """A tokenizer in which every seventh token ends a turn."""

    eos_token_id = 1
    added_tokens_decoder: dict = {}

    def __len__(self):
        return 96

    def decode(self, ids, skip_special_tokens=True):
        return "".join("e" if i % 7 == 3 else "x" for i in ids)

    def batch_decode(self, rows):
        return [self.decode(row) for row in rows]


class AtAnE:
    trigger = "e"

    def __call__(self, text):
        return text.endswith("e")


def build(name, sizes):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = getattr(transformers, f"{name}Config")(**sizes)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():  # far from uniform, so that a wrong mask shows
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return model


@pytest.mark.parametrize("name", SERVED)
def test_logprobs_over_ragged_turns_are_those_of_one_plain_pass(name):
    model = build(name, SERVED[name])
    session = TransformersGenerator(model, Letters(), [1]).open(PROMPTS, temperature=1.0, seed=3)
    contexts, rows, turns = [list(p) for p in PROMPTS], [0, 1, 2, 3], []
    for turn in range(4):
        outputs = [OUTPUTS[(row + turn) % 4] if turn else [] for row in rows]
        sampled = session.generate(rows, outputs, [30] * len(rows), AtAnE())
        for row, output, result in zip(rows, outputs, sampled, strict=True):
            ids = contexts[row] + output + result.ids
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids])).logits[0].float()
            plain = logits.log_softmax(-1)[-len(result.ids) - 1 : -1]
            expected = plain.gather(-1, torch.tensor(result.ids)[:, None])[:, 0].tolist()
            assert result.logprobs == pytest.approx(expected, abs=1e-4)
            contexts[row] = ids
        turns.append(len(rows))
        rows = [row for row, result in zip(rows, sampled, strict=True) if result.reason == "stop"]
    assert min(turns) >= 2, "every turn needs rows of different length"


@pytest.mark.parametrize("name", REFUSED)
def test_what_keeps_something_else_than_keys_and_values_is_refused_by_name(name):
    model = build(name, REFUSED[name])
    with pytest.raises(UnsupportedModel, match=f"is a {name}ForCausalLM"):
        TransformersGenerator(model, Letters(), [1])
