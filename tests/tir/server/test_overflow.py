"""What servers say when a context is full, word for word as they say it."""

import json

import pytest

from ctpo.tir.server.overflow import find_overflow

# status, what the server says, the room it tells of with 1000 tokens asked for: 0 or less where the
# prompt alone is too long, None where it does not say.
SAID = {
    "OpenAI": (
        400,
        "This model's maximum context length is 4097 tokens. However, you requested 4203 tokens "
        "(3203 in the messages, 1000 in the completion). Please reduce the length of the messages "
        "or completion.",
        894,
    ),
    "OpenAI, prompt": (
        400,
        "This model's maximum context length is 8192 tokens. However, your messages resulted in "
        "8545 tokens. Please reduce the length of the messages.",
        -353,
    ),
    "OpenAI, completions": (
        400,
        "This model's maximum context length is 8191 tokens, however you requested 8346 tokens "
        "(7346 in your prompt; 1000 for the completion). Please reduce your prompt; or completion "
        "length.",
        845,
    ),
    "OpenAI, newer": (
        400,
        "Your input exceeds the context window of this model. Please adjust your input and try "
        "again.",
        0,
    ),
    "OpenAI, answers": (
        400,
        "max_tokens is too large: 1000. This model supports at most 512 completion tokens, whereas "
        "you provided 1000.",
        512,
    ),
    "a code alone": (
        400,
        {"error": {"code": "context_length_exceeded", "message": "Bad request"}},
        None,
    ),
    "Azure": (
        400,
        {
            "error": {
                "message": "This model's maximum context length is 16,385 tokens. However, you "
                "requested 17,000 tokens (16,000 in the messages, 1,000 in the completion).",
                "code": "context_length_exceeded",
            }
        },
        385,
    ),
    "vLLM 0.6": (
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens. However, you requested "
            "5036 tokens (4036 in the messages, 1000 in the completion). Please reduce the length "
            "of the messages or completion.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        60,
    ),
    "vLLM 0.9": (
        400,
        "'max_tokens' or 'max_completion_tokens' is too large: 1000. This model's maximum context "
        "length is 1000 tokens and your request has 10 input tokens (1000 > 1000 - 10).",
        990,
    ),
    "vLLM 0.9, prompt": (
        400,
        "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens in "
        "the messages, Please reduce the length of the messages.",
        -904,
    ),
    "vLLM 0.9, offline": (
        400,
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make "
        "sure that `max_model_len` is no smaller than the number of text tokens.",
        -904,
    ),
    "vLLM 0.10, no budget": (400, "max_tokens must be at least 1, got -904.", 0),
    "vLLM 0.12": (
        400,
        "This model's maximum context length is 131072 tokens. However, you requested 1000 output "
        "tokens and your prompt contains 131000 input tokens, for a total of 132000 tokens. Please "
        "reduce the length of the input prompt or the number of requested output tokens. "
        "(parameter=input_tokens, value=131000)",
        72,
    ),
    # A lower bound, made up of the limit and what was asked: it says nothing of the prompt.
    "vLLM 0.12, not counted": (
        400,
        "This model's maximum context length is 8192 tokens. However, you requested 1000 output "
        "tokens and your prompt contains at least 7193 input tokens, for a total of at least 8193 "
        "tokens. Please reduce the length of the input prompt or the number of requested output "
        "tokens.",
        None,
    ),
    "vLLM, Rust": (
        400,
        "this model's maximum context length is 4096 tokens, but the prompt contains 5000 input "
        "tokens",
        -904,
    ),
    "SGLang": (
        400,
        "Requested token count exceeds the model's maximum context length of 4096 tokens. You "
        "requested a total of 5000 tokens: 4000 tokens from the input messages and 1000 tokens for "
        "the completion. Please reduce the number of tokens in the input messages or the "
        "completion to fit within the limit.",
        96,
    ),
    "SGLang, prompt": (
        400,
        "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
        -904,
    ),
    "SGLang, scheduler": (
        400,
        "Input length (5000 tokens) exceeds the maximum allowed length (4096 tokens). Use a "
        "shorter input or enable --allow-auto-truncate.",
        -904,
    ),
    "SGLang, answers": (
        400,
        "max_completion_tokens is too large: 1000.This model supports at most 512 completion "
        "tokens.",
        512,
    ),
    "TGI": (
        422,
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. "
            "Given: 4000 `inputs` tokens and 1000 `max_new_tokens`",
            "error_type": "validation",
        },
        96,
    ),
    "TGI, prompt": (
        422,
        "Input validation error: `inputs` must have less than 4095 tokens. Given: 5000",
        0,
    ),
    "Together": (
        422,
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 8000 "
        "`inputs` tokens and 1000 `max_new_tokens`",
        193,
    ),
    "TensorRT-LLM": (
        400,
        "The sum of prompt length (4000.0) and query length (0) max_tokens (1000) should not "
        "exceed max_seq_len (4096)",
        96,
    ),
    "TensorRT-LLM, prompt": (
        400,
        "default_max_tokens (-904) must be greater than 0, default_max_tokens (-904) = max_seq_len "
        "(4096) - splited_prompt_len (5000) - query_token_len (0)",
        -904,
    ),
    "TensorRT-LLM, engine": (
        500,
        "Cannot process new request: Prompt length (5056) exceeds maximum input length (2048). Set "
        "log level to info and check TRTGptModel logs for how maximum input length is set",
        -3008,
    ),
    "LMDeploy": (
        400,
        "internal error happened, status code ResponseType.INPUT_LENGTH_ERROR",
        0,
    ),
    "llama.cpp": (
        400,
        {
            "error": {
                "code": 400,
                "message": "request (9412 tokens) exceeds the available context size (8192 "
                "tokens), try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 9412,
                "n_ctx": 8192,
            }
        },
        -1220,
    ),
    "llama.cpp, older": (
        400,
        "the request exceeds the available context size. try increasing the context size or enable "
        "context shift",
        0,
    ),
    "llama-cpp-python": (
        400,
        "This model's maximum context length is 512 tokens. However, you requested 1300 tokens "
        "(300 in the messages, 1000 in the completion). Please reduce the length of the messages "
        "or completion.",
        212,
    ),
    "llama-cpp-python, prompt": (
        500,
        "Requested tokens (822) exceed context window of 512",
        0,
    ),
    "LM Studio": (
        400,
        "Trying to keep the first 5000 tokens when context the overflows. However, the model is "
        "loaded with context length of only 4096 tokens, which is not enough. Try to load the "
        "model with a larger context length, or provide a shorter input.",
        -904,
    ),
    "Ollama": (400, "prompt too long; exceeded max context length by 904 tokens", 0),
    "Gemini": (
        400,
        {
            "error": {
                "code": 400,
                "message": "The input token count (1048577) exceeds the maximum number of tokens "
                "allowed (1048576).",
                "status": "INVALID_ARGUMENT",
            }
        },
        -1,
    ),
    "Anthropic": (
        400,
        {
            "type": "error",
            "error": {
                "type": "invalid_request_error",
                "message": "input length and `max_tokens` exceed context limit: 199500 + 1000 > "
                "200000, decrease input length or `max_tokens` and try again",
            },
        },
        500,
    ),
    "Anthropic, prompt": (
        400,
        'data: {"error":{"message":"prompt is too long: 200001 tokens \\u003e 200000 maximum"}}',
        0,
    ),
    "Anthropic, size": (
        413,
        {"error": {"type": "request_too_large", "message": "Request exceeds the maximum size"}},
        0,
    ),
    "Groq": (
        400,
        {
            "error": {
                "message": "Please reduce the length of the messages or completion.",
                "type": "invalid_request_error",
                "param": "messages",
                "code": "context_length_exceeded",
            }
        },
        None,
    ),
    "Groq, answers": (
        400,
        "`max_tokens` must be less than or equal to `512`, the maximum value for `max_tokens` is "
        "less than the `context_window` for this model",
        512,
    ),
    "Cerebras": (
        400,
        "Please reduce the length of the messages or completion. Current length is 8592 while "
        "limit is 8192",
        600,
    ),
    "Mistral": (
        400,
        {
            "object": "error",
            "message": "Prompt contains 40000 tokens and 0 draft tokens, too large for model with "
            "32768 maximum context length",
            "type": "invalid_request_prompt",
            "code": "3051",
        },
        -7232,
    ),
    "DeepSeek": (
        400,
        "This model's maximum context length is 65536 tokens. However, you requested 66000 tokens "
        "(65000 in the messages, 1000 in the completion). Please reduce the length of the messages "
        "or completion.",
        536,
    ),
    "DeepSeek, answers": (
        400,
        "Invalid max_tokens value, the valid range of max_tokens is [1, 512]",
        512,
    ),
    "xAI": (
        400,
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        -406740,
    ),
    "OpenRouter": (
        400,
        "This endpoint's maximum context length is 131072 tokens. However, you requested about "
        "132000 tokens (131000 of text input, 1000 in the output). Please reduce the length of "
        "either one.",
        72,
    ),
    "Fireworks": (
        400,
        "The prompt is too long: 140000, model maximum context length: 131071",
        -8929,
    ),
    "Bedrock": (400, "Input is too long for requested model.", 0),
    "Cohere": (
        400,
        "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000.",
        None,
    ),
    "Qwen": (400, "Range of input length should be [1, 30720]", 0),
    "Kimi": (
        400,
        "Invalid request: Your request exceeded model token limit: 8192 (requested: 8592)",
        600,
    ),
    "Zhipu": (400, {"error": {"code": "1261", "message": "Prompt 超长"}}, None),
    "MiniMax": (400, "invalid params, context window exceeds limit (2013)", 0),
    "GitHub": (400, "prompt token count of 5000 exceeds the limit of 4096", -904),
}


@pytest.mark.parametrize("server", SAID)
@pytest.mark.parametrize("streamed", [False, True])
def test_a_full_context_is_known_and_its_room_is_read(server, streamed):
    status, said, room = SAID[server]
    text = said if isinstance(said, str) else json.dumps(said)
    found = find_overflow(200 if streamed else status, text, asked=1000)
    assert found is not None
    if room is not None and room < 1:
        assert found.room is not None
        assert found.room < 1
    else:
        assert found.room == room


def test_words_in_a_gateways_own_wrapping_are_read_as_well():
    for status, said, room in SAID.values():
        inner = json.dumps({"detail": said})
        found = find_overflow(status, json.dumps({"error": {"message": inner}}), asked=1000)
        assert found is not None
        assert found.room == room or (found.room is not None and found.room < 1 > (room or 0))


@pytest.mark.parametrize(
    "message",
    [
        "no model of the name good2",
        "temperature must be at most 2",
        "Invalid 'messages[0].content': expected a string",
        "max_tokens must be at least 1, got 0",
        "out of memory",
        "Rate limit reached for requests",
        "The model produced invalid content",
        '{"detail": [{"loc": ["body", "top_k"], "msg": "Extra inputs are not permitted"}]}',
        "",
    ],
)
def test_other_refusals_say_nothing_of_the_context(message):
    assert find_overflow(400, message, asked=1000) is None


@pytest.mark.parametrize("status", [401, 403, 404, 429, 502, 503])
def test_a_status_that_means_something_else_means_that(status):
    assert find_overflow(status, "maximum context length is 10 tokens", asked=1000) is None
