"""Peer: transformers and torch on a plain decoder; `generate`, and greedy loops written by hand, eager or compiled.

``loop`` is ``generate`` (transformers' own), ``growing`` (the model's forward with transformers' growing cache, nothing
else in the loop) or ``static`` (a static cache and a tensor of positions, which one compiled graph can serve).
Prompts of different lengths are padded on the left and masked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from peers.batches import BatchEngine
from peers.packed import pack
from peers.protocol import Answer, StepClock, serve, versions

Tensor = torch.Tensor


class TorchCausal(BatchEngine):
    """A decoder of transformers."""

    def do_open(
        self,
        model: str,
        threads: int = 2,
        precision: str = "fp32",
        loop: str = "growing",
        compiled: str = "",
        packed: bool = False,
    ) -> Answer:
        """Load the weights; `compiled` is torch.compile's mode, `packed` gives eager Linears oneDNN's layout."""
        torch.set_num_threads(threads)
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
        self._model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=dtype, attn_implementation="sdpa")
        self._model.eval().requires_grad_(False)
        self._loop = {"generate": self._generate, "growing": self._growing, "static": self._static}[loop]
        if packed:
            pack(self._model)
            for one in self._model.parameters():  # what is left lets go of the mapped file, most of which was copied
                one.data = one.data.clone()
        self._step = torch.compile(self._forward, mode=compiled, dynamic=False) if compiled else self._forward
        return {
            "versions": versions("torch", "transformers"),
            "precision": precision,
            "threads": torch.get_num_threads(),
            "notes": f"{torch.backends.cpu.get_cpu_capability()}, loop {loop}, "
            f"{f'torch.compile {compiled}' if compiled else 'eager'}{', Linears packed for oneDNN' if packed else ''}",
        }

    @torch.inference_mode()
    def do_generate(self, prompts: list[list[int]], new_tokens: int, margins: bool = False) -> Answer:
        """Write greedily; `margins` also gives how far each choice was ahead of the next one, [B][N]."""
        self._margins: list[Tensor] | None = [] if margins else None
        clock = StepClock()
        ids, mask = padded(prompts)
        answer = clock.answer(self._loop(ids, mask, new_tokens, clock).tolist(), new_tokens)
        if self._margins is not None:
            answer["margins"] = torch.stack(self._margins, 1).tolist()
        return answer

    def _generate(self, ids: Tensor, mask: Tensor, new_tokens: int, clock: StepClock) -> Tensor:
        seen = None if self._margins is None else self._choose
        return generate(self._model, transformers, ids, mask, new_tokens, clock, seen)

    def _growing(self, ids: Tensor, mask: Tensor, new_tokens: int, clock: StepClock) -> Tensor:
        cache, tokens, chosen = transformers.DynamicCache(config=self._model.config), ids, []
        is_padded, places = not bool(mask.all()), mask.cumsum(1).sub_(1).clamp_(min=0)
        for _ in range(new_tokens):
            # Without padding transformers makes a plain causal mask, which is the faster way.
            where = {"attention_mask": mask, "position_ids": places} if is_padded else {}
            logits = self._model(
                input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1, **where
            ).logits
            tokens = self._choose(logits[:, -1])
            mask, places = torch.cat((mask, torch.ones_like(tokens)), 1), places[:, -1:] + 1
            chosen.append(tokens)
            clock.tick()
        return torch.cat(chosen, 1)

    def _static(self, ids: Tensor, mask: Tensor, new_tokens: int, clock: StepClock) -> Tensor:
        if not mask.all():
            raise ValueError("the static loop takes prompts of one length; choose another loop")
        prompt_len = ids.shape[1]
        cache = transformers.StaticCache(config=self._model.config, max_cache_len=prompt_len + new_tokens)
        places = torch.arange(prompt_len + new_tokens)
        tokens = self._choose(self._forward(ids, places[None, :prompt_len], cache))
        chosen = [tokens]
        clock.tick()
        for t in range(new_tokens - 1):
            # A clone: inside a compiled graph a view at another offset would be another input to compile for.
            at = places[None, prompt_len + t : prompt_len + t + 1].clone()
            tokens = self._choose(self._step(tokens, at, cache))
            chosen.append(tokens)
            clock.tick()
        return torch.cat(chosen, 1)

    def _forward(self, tokens: Tensor, positions: Tensor, cache: Any) -> Tensor:
        """Run tokens [B, T] at positions [1, T] -> the last one's logits [B, V]."""
        out = self._model(
            input_ids=tokens, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        logits: Tensor = out.logits[:, -1]
        return logits

    def _choose(self, logits: Tensor) -> Tensor:
        if self._margins is not None:
            best = logits.float().topk(2).values
            self._margins.append(best[:, 0] - best[:, 1])
        return logits.argmax(-1, keepdim=True)


def padded(prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Pad prompts on the left -> ids int64 [B, P], and a mask [B, P] that is one where there is a token."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(one)) + list(one) for one in prompts])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in prompts])
    return ids, mask


def generate(
    model: Any,
    library: Any,
    ids: Tensor,
    mask: Tensor,
    new_tokens: int,
    clock: StepClock,
    seen: Callable[[Tensor], object] | None = None,
) -> Tensor:
    """Run `generate` of transformers, noting the time of every step; returns the new tokens [B, N].

    `seen` is given the logits [B, V] of every step.
    """
    out = model.generate(
        ids,
        attention_mask=mask,
        do_sample=False,
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        **watching(library, clock, seen),
    )
    chosen: Tensor = out[:, ids.shape[1] :]
    return chosen


def watching(library: Any, clock: StepClock, seen: Callable[[Tensor], object] | None = None) -> dict[str, Any]:
    """Return options of `generate` that note the time of every step and give its logits [B, V] to `seen`."""

    class Watch(library.StoppingCriteria):  # type: ignore[misc]
        def __call__(self, tokens: Tensor, scores: Any, **_: Any) -> Tensor:
            clock.tick()
            return torch.zeros(len(tokens), dtype=torch.bool)

    class See(library.LogitsProcessor):  # type: ignore[misc]
        def __call__(self, tokens: Tensor, scores: Tensor) -> Tensor:
            assert seen is not None
            seen(scores)
            return scores

    return {
        "stopping_criteria": library.StoppingCriteriaList([Watch()]),
        "logits_processor": library.LogitsProcessorList([See()] if seen else []),
    }


if __name__ == "__main__":
    serve(TorchCausal())
