"""Texts in progress on the device: the next token is chosen and fed back without the host."""

from __future__ import annotations

from typing import Any

import numpy as np

from cellscribe.engine.backends.base import NOT_FINITE, Admission, SlotPlan
from cellscribe.engine.backends.samplers import sampling_of
from cellscribe.engine.backends.tensorrt.device import Device, Tensor
from cellscribe.engine.backends.text import Prompted, TextPlan
from cellscribe.engine.decode.sampling import TOKEN_STREAM
from cellscribe.engine.keyed import stream_keys, uniforms
from cellscribe.engine.types import Sampling


def choose(logits: Tensor, sampling: Sampling, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Choose one token per row, as :func:`cellscribe.engine.decode.sampling.choose` does, in torch.

    Parameters
    ----------
    logits
        float32 [n, V].
    draws
        Uniform numbers float32 [n]; not used by greedy sampling.

    Returns
    -------
    Token ids int64 [n], and their log-probabilities before temperature and top-p, float32 [n].
    """
    logprobs = logits.log_softmax(-1)
    tokens = logits.argmax(-1) if sampling.is_greedy else _top_p(logits, sampling, draws)
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


def _top_p(logits: Tensor, sampling: Sampling, draws: Tensor) -> Tensor:
    scaled = (logits - logits.amax(-1, keepdim=True)) / sampling.temperature
    return _nucleus(scaled, sampling.top_p, draws)


def _nucleus(scaled: Tensor, top_p: float | Tensor, draws: Tensor) -> Tensor:
    weights, order = scaled.double().exp().sort(dim=-1, descending=True, stable=True)
    mass = weights.cumsum(-1)
    kept = (mass < top_p * mass[:, -1:]).sum(-1, keepdim=True).clamp(max=mass.shape[-1] - 1)
    reached = mass.gather(-1, kept)
    at = (mass <= draws.double()[:, None] * reached).sum(-1, keepdim=True).minimum(kept)
    chosen: Tensor = order.gather(-1, at)[:, 0]
    return chosen


def choose_each(logits: Tensor, temperatures: Tensor, top_ps: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Choose one token per row, each by temperatures float32 [n] and top_ps float64 [n]; further as :func:`choose`.

    A temperature of 0 is greedy. No row depends on the others, and nothing waits for the host.
    """
    logprobs = logits.log_softmax(-1)
    is_greedy = temperatures == 0.0
    divisors = temperatures.masked_fill(is_greedy, 1.0)[:, None]
    shifted = logits - logits.amax(-1, keepdim=True)
    # As torch divides by a number: on a GPU it multiplies by the inverse, which may be another float.
    scaled = shifted * divisors.reciprocal() if shifted.is_cuda else shifted / divisors
    tokens = logits.argmax(-1).where(is_greedy, _nucleus(scaled, top_ps[:, None], draws))
    return tokens, logprobs.gather(-1, tokens[:, None])[:, 0]


class TextState:
    """What a step takes besides caches and memory, and what it leaves for the host; B rows.

    The random numbers of a text are drawn when it is admitted, one for each token that it may have, so that the device
    only looks them up. `near` is the mask of layers that see the last `window` positions alone.
    """

    def __init__(
        self, torch: Any, device: Device, plan: SlotPlan | TextPlan, prompt_len: int, capacity: int, window: int = 0
    ) -> None:
        rows = plan.num_slots
        self._torch, self._device, self._plan, self._window = torch, device, plan, window
        self._range = device.upload(np.arange(capacity))
        self._eos = device.upload(np.array(sorted(plan.eos_ids) or [NOT_FINITE], dtype=np.int64))
        self.tokens = device.zeros((rows, 1), torch.int64)
        self.positions = device.zeros((rows, 1), torch.int64)
        self.mask = device.zeros((rows, 1, capacity), torch.bool)
        self._lengths = device.zeros((rows,), torch.int64)  # tokens chosen so far
        self._prompt_lens = device.zeros((rows,), torch.int64)
        self._alive = device.zeros((rows,), torch.bool)
        self._draws = device.zeros((rows, plan.max_new_tokens), torch.float32)
        self._temperatures = device.zeros((rows,), torch.float32)  # these two where the plan mixes samplings
        self._top_ps = device.zeros((rows,), torch.float64)
        self.spoke = device.zeros((rows,), torch.bool)  # rows that chose a token in the last run
        self.chosen = device.zeros((rows,), torch.int64)
        self.logprobs = device.zeros((rows,), torch.float32)
        self.near = device.zeros((rows, 1, capacity), torch.bool) if window else self.mask
        with device.working():
            self.near[:, :, 0] = True
            self.mask[:, :, 0] = True  # an idle row attends to something, so that it stays finite
            self._prompt_lens.fill_(prompt_len)

    def begin(self, one: Admission | Prompted, prompt_len: int | None = None) -> None:
        """Start a text in a row; its prompt has `prompt_len` tokens, where it is not that of all rows.

        UsageError for a sampling of its own where the plan mixes none.
        """
        slot, sampling = one.slot, sampling_of(self._plan, one)
        if prompt_len is not None:
            self._prompt_lens[slot] = prompt_len
        draws = uniforms(
            stream_keys(sampling.seed, np.array([one.key], np.uint64), TOKEN_STREAM),
            np.arange(self._plan.max_new_tokens),
        )
        self._draws[slot] = self._device.upload(draws)
        if self._plan.mixes:
            self._temperatures[slot] = sampling.temperature
            self._top_ps[slot] = sampling.top_p
        self._lengths[slot] = 0
        self._alive[slot] = True

    def advance(self, logits: Tensor, rows: slice) -> None:
        """Choose the next token of those rows from logits [n, V] whose texts go on; nothing waits for the host."""
        torch, plan = self._torch, self._plan
        alive, lengths = self._alive[rows], self._lengths[rows]
        counter = lengths.clamp(max=plan.max_new_tokens - 1)[:, None]
        draws = self._draws[rows].gather(-1, counter)[:, 0]
        if plan.mixes:
            tokens, logprobs = choose_each(logits, self._temperatures[rows], self._top_ps[rows], draws)
        else:
            tokens, logprobs = choose(logits, plan.sampling, draws)
        finite = torch.isfinite(logprobs)
        self.spoke[rows].copy_(alive)
        self.chosen[rows].copy_(tokens.where(finite, torch.full_like(tokens, NOT_FINITE)))
        self.logprobs[rows].copy_(logprobs)
        fed, at = self.tokens[rows, 0], self.positions[rows, 0]
        fed.copy_(torch.where(alive, tokens.where(finite, torch.zeros_like(tokens)), fed))
        at.copy_(torch.where(alive, self._prompt_lens[rows] + lengths, at))
        seen = self._range <= self.positions[rows]
        self.mask[rows, 0].copy_(seen)
        if self._window:
            self.near[rows, 0].copy_(seen & (self._range > self.positions[rows] - self._window))
        lengths.add_(alive)
        ended = ~finite | (tokens[:, None] == self._eos).any(-1) | (lengths >= plan.max_new_tokens)
        alive.logical_and_(~ended)
