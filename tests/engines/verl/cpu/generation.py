"""Continuous batching with a `transformers` model: requests join and leave between two tokens."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import Cache, DynamicLayer


@dataclass(frozen=True)
class Generated:
    """What one request sampled: ids, their log-probabilities, and why and by which weights."""

    ids: list[int]
    logprobs: list[float]
    reason: str  # "stop", "length" or "aborted"
    version: int


@dataclass(eq=False)
class Request:
    prompt: list[int]
    budget: int
    temperature: float = 1.0
    stop: Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    future: Future[Generated] = field(default_factory=Future)


class _Layer(DynamicLayer):
    """Keys and values of the running requests, line by line, each as long as its request."""

    is_initialized = True

    def __init__(self, owner: BatchingGenerator, heads: int, width: int) -> None:
        super().__init__()
        self._owner = owner
        self.keys = torch.zeros(8, heads, owner.longest, width)
        self.values = torch.zeros_like(self.keys)

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Put one token behind each line; return what there is up to the longest line."""
        lines, lengths = self._owner.lines, self._owner.lengths
        count = len(lines)
        self.keys[lines, :, lengths] = key_states[:, :, 0]
        self.values[lines, :, lengths] = value_states[:, :, 0]
        end = int(lengths.max()) + 1
        return self.keys[:count, :, :end], self.values[:count, :, :end]

    def fill(self, line: int, keys: Tensor, values: Tensor) -> None:
        while line >= len(self.keys):
            self.keys = torch.cat([self.keys, torch.zeros_like(self.keys)])
            self.values = torch.cat([self.values, torch.zeros_like(self.values)])
        self.keys[line, :, : keys.shape[1]] = keys
        self.values[line, :, : keys.shape[1]] = values

    def move(self, source: int, target: int) -> None:
        self.keys[target] = self.keys[source]
        self.values[target] = self.values[source]


class BatchingGenerator:
    """Generates for many callers at once, in a thread of its own.

    Samples from softmax(logits / temperature) over the whole vocabulary; 0 takes the likeliest
    token. Whatever goes wrong in the thread is raised by every request from then on.

    Args:
        model: Its weights are replaced by `load`.
        tokenizer: Turns ids into the text that stop strings are looked for in.
        longest: Most tokens of a prompt and its answer.
        most: Most requests at once; others wait.
        seed: Of the sampling.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        longest: int,
        most: int = 128,
        seed: int = 0,
    ) -> None:
        self.model = model.eval()
        self.longest = longest
        self.lines = torch.arange(0)
        self.lengths = torch.zeros(0, dtype=torch.long)  # tokens in the cache, per line
        self._tokenizer = tokenizer
        self._texts = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
        eos = model.generation_config.eos_token_id
        self._eos = {tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])}
        self._most = most
        self._random = torch.Generator().manual_seed(seed)
        config = model.config
        self._cache = Cache(
            layers=[
                _Layer(self, config.num_key_value_heads, config.head_dim)
                for _ in range(config.num_hidden_layers)
            ]
        )
        self._running: list[Request] = []
        self._waiting: list[Request] = []
        self._version = 0
        self._paused = False
        self._error: BaseException | None = None
        # Held by the thread for as long as it works on one token.
        self._turn = threading.Condition()
        threading.Thread(target=self._run, daemon=True, name="generation").start()

    def submit(self, request: Request) -> Future[Generated]:
        """Queue a request.

        Raises:
            ValueError: A prompt that leaves no room, or is empty.
        """
        if not request.prompt or len(request.prompt) >= self.longest:
            raise ValueError(
                f"a prompt has {len(request.prompt)} tokens; 1 to {self.longest - 1} is right"
            )
        request.budget = max(1, min(request.budget, self.longest - len(request.prompt)))
        with self._turn:
            if self._error is not None:
                raise self._error
            self._waiting.append(request)
            self._turn.notify()
        return request.future

    def load(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Take over weights; requests that run go on with them, on the old keys and values."""
        with self._turn, torch.no_grad():
            own = dict(self.model.named_parameters())
            missing = own.keys() - weights.keys()
            if missing or weights.keys() - own.keys() - {"lm_head.weight"}:
                raise KeyError(f"weights differ from the model's: {missing or weights.keys()}")
            for name, parameter in own.items():
                parameter.copy_(weights[name])
            self._version = version

    def pause(self) -> int:
        """End all requests as they are, `aborted`, and let new ones wait; return how many."""
        with self._turn:
            self._paused = True
            aborted = len(self._running) + len(self._waiting)
            for request in [*self._running, *self._waiting]:
                self._finish(request, "aborted")
            self._waiting.clear()
            self._running.clear()
            self._set_lengths([])
            return aborted

    def resume(self) -> None:
        with self._turn:
            self._paused = False
            self._turn.notify()

    def _run(self) -> None:
        try:
            while True:
                with self._turn, torch.no_grad():
                    while self._paused or not (self._waiting or self._running):
                        self._turn.wait()
                    room = self._most - len(self._running)
                    joining, self._waiting = self._waiting[:room], self._waiting[room:]
                    if joining:
                        self._join(joining)
                    elif self._running:
                        self._step()
        except BaseException as error:
            with self._turn:
                self._error = error
                for request in [*self._running, *self._waiting]:
                    if not request.future.done():
                        request.future.set_exception(error)

    def _join(self, requests: Sequence[Request]) -> None:
        """Read the prompts in one pass, padded on the right, and sample each one's first token."""
        first = len(self._running)
        self._running.extend(requests)
        columns = max(len(request.prompt) for request in requests)
        ids = torch.tensor([r.prompt + [0] * (columns - len(r.prompt)) for r in requests])
        cache = Cache(layers=[DynamicLayer() for _ in self._cache.layers])
        logits = self.model(input_ids=ids, past_key_values=cache, use_cache=True).logits
        lengths = [len(request.prompt) for request in requests]
        for row, length in enumerate(lengths):
            for ours, theirs in zip(self._cache.layers, cache.layers, strict=True):
                keys, values = theirs.keys[row, :, :length], theirs.values[row, :, :length]
                ours.fill(first + row, keys, values)
        self._set_lengths(self.lengths.tolist() + lengths)
        last = torch.tensor(lengths) - 1
        self._sample(logits[torch.arange(len(requests)), last], first)

    def _step(self) -> None:
        """Sample one token for every running request."""
        last = torch.tensor([[request.ids[-1]] for request in self._running])
        seen = torch.arange(int(self.lengths.max()) + 1) <= self.lengths[:, None]
        logits = self.model(
            input_ids=last,
            attention_mask=seen[:, None, None, :],
            position_ids=self.lengths[:, None],
            past_key_values=self._cache,
            use_cache=True,
        ).logits[:, -1]
        self._set_lengths((self.lengths + 1).tolist())
        self._sample(logits, 0)

    def _sample(self, logits: Tensor, first: int) -> None:
        """Give a token to each request from line `first` on, and end those that are done."""
        requests = self._running[first:]
        temperatures = torch.tensor([request.temperature for request in requests])[:, None]
        greedy = temperatures == 0
        log_p = (logits.float() / temperatures.where(~greedy, 1.0)).log_softmax(-1)
        # argmax(log p - log e) with e ~ Exp(1) draws from p.
        noise = torch.empty_like(log_p).exponential_(generator=self._random).log()
        tokens = (log_p - noise.where(~greedy, 0.0)).argmax(-1)
        chosen = log_p.gather(-1, tokens[:, None])[:, 0]
        for request, token, logprob in zip(requests, tokens.tolist(), chosen.tolist(), strict=True):
            request.ids.append(token)
            request.logprobs.append(logprob)
        for line in reversed(range(first, len(self._running))):
            reason = self._reason(self._running[line])
            if reason is not None:
                self._finish(self._running[line], reason)
                self._leave(line)

    def _reason(self, request: Request) -> str | None:
        token = request.ids[-1]
        if token in self._eos or token in request.stop_token_ids:
            return "stop"
        if any(end[-1] in self._texts[token] for end in request.stop):
            text = self._tokenizer.decode(request.ids)
            if any(end in text for end in request.stop):
                return "stop"
        return "length" if len(request.ids) >= request.budget else None

    def _finish(self, request: Request, reason: str) -> None:
        request.future.set_result(Generated(request.ids, request.logprobs, reason, self._version))

    def _leave(self, line: int) -> None:
        """Free a line, and let the last one take its place."""
        last = len(self._running) - 1
        lengths = self.lengths.tolist()
        if line != last:
            for layer in self._cache.layers:
                layer.move(last, line)
            self._running[line], lengths[line] = self._running[last], lengths[last]
        self._running.pop()
        self._set_lengths(lengths[:-1])

    def _set_lengths(self, lengths: list[int]) -> None:
        self.lengths = torch.tensor(lengths, dtype=torch.long)
        self.lines = torch.arange(len(lengths))
