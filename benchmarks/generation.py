"""Generation: our KV-cache loop beside `transformers.generate`, interleaved in one run.

Both sample 128 responses of 96 tokens from a fresh tiny model, on one thread. The ratio is what
counts; the tokens per second are this machine's, at this moment.
"""

import statistics
import time

import torch

from ctpo.tasks import generate
from ctpo.tir.transformers_generator import TransformersGenerator
from ctpo.training.models import quiet_libraries
from ctpo.training.recipe.recipe import TinyModel
from ctpo.training.tiny import teacher
from ctpo.training.tiny.model import build_model, build_tokenizer

ROWS, TOKENS, ROUNDS = 128, 96, 7


class Never:
    trigger = "`"

    def __call__(self, text):
        return False


def main() -> None:
    quiet_libraries()
    torch.set_num_threads(1)
    problems = generate(700, seed=0)
    transcripts = teacher.demonstrations(problems, seed=0)
    texts = [t.messages[-1]["content"] + "\n" + t.text for t in transcripts]
    tokenizer = build_tokenizer(texts, 384)
    model = build_model(TinyModel(), tokenizer, seed=0).eval()
    prompts = [
        tokenizer.encode(
            tokenizer.apply_chat_template(
                list(p.messages), tokenize=False, add_generation_prompt=True
            )
        )
        for p in problems[:ROWS]
    ]
    # Neither side may end a row early: both do the same work. 0 is the padding, never sampled here.
    ours = TransformersGenerator(model, tokenizer, eos_token_ids=[len(tokenizer)])
    tokenizer.padding_side = "left"
    padded = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")

    def run_ours() -> None:
        session = ours.open(prompts, temperature=1.0, seed=0)
        session.generate(range(ROWS), [[]] * ROWS, [TOKENS] * ROWS, Never())

    def run_library() -> None:
        with torch.no_grad():
            model.generate(
                **padded,
                do_sample=True,
                top_k=0,
                max_new_tokens=TOKENS,
                min_new_tokens=TOKENS,
                pad_token_id=tokenizer.pad_token_id,
                output_logits=True,
                return_dict_in_generate=True,
            )

    seconds: dict[str, list[float]] = {"ctpo": [], "generate": []}
    for _ in range(ROUNDS):
        for name, run in (("ctpo", run_ours), ("generate", run_library)):
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    for name, times in seconds.items():
        middle, spread = statistics.median(times), max(times) / min(times)
        print(f"{name:9} {ROWS * TOKENS / middle:8.0f} tokens/s   slowest/fastest {spread:.2f}")
    ratios = [b / a for a, b in zip(seconds["ctpo"], seconds["generate"], strict=True)]
    print(
        f"ratio     {statistics.median(ratios):8.2f}   from {min(ratios):.2f} to {max(ratios):.2f}"
    )


if __name__ == "__main__":
    main()
