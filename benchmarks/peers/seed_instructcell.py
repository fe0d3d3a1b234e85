"""InstructCell as upstream runs it, in torch: `generate` of transformers after the tower, then a second full pass.

Upstream gives the model one prompt at a time, or padded batches with masks. What a text says is written first; for the
condition of a profile the whole text goes through encoder and decoder once more, without a cache, and counts are drawn
from the distribution that the decoder of profiles gives. The Q-Former's attention is torch's own fused one, which is
kinder than the original's. Texts are written to a length that is asked for; a text that is to end with a cell gets the
signal there.
"""

from __future__ import annotations

import time
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from peers.causal_torch import watching
from peers.instruct_cells import counts
from peers.packed import pack
from peers.protocol import Answer, Engine, StepClock, serve, versions
from peers.seed_langcell import UpstreamLayer
from peers.seed_parts import WEIGHTS_SEED, linear
from peers.seed_t5 import t5_of
from torch import Tensor, nn
from torch.distributions import Gamma, Normal, Poisson

from cellscribe.export.models.bert import BertLayer
from cellscribe.export.models.instructcell import CellTower, ProfileDecoder
from cellscribe.export.models.ops import Dense
from cellscribe.export.random_instruct import random_instruct

_MOST = 1e8  # of a rate that counts are drawn with


class SeedTower(nn.Module):
    """Counts in, features out, in torch's modules."""

    def __init__(self, ours: CellTower) -> None:
        super().__init__()
        self.n_memory = ours.config.n_memory
        self.blocks = nn.ModuleList(map(linear, cast("list[Dense]", list(ours.blocks))))
        self.queries, self.norm = ours.queries, ours.norm
        self.layers = nn.ModuleList(map(UpstreamLayer, cast("list[BertLayer]", list(ours.layers))))

    def forward(self, cells: Tensor) -> Tensor:
        """Map counts [B, G] to features [B, Q, d]."""
        x = torch.log1p(cells / cells.sum(1, keepdim=True) * 1e4)
        for i, block in enumerate(self.blocks):
            x = F.gelu(block(x)) + (x if i else 0)
        memory = x.reshape(len(x), self.n_memory, -1)
        found = self.norm(self.queries.expand(len(x), -1, -1))
        for layer in self.layers:
            found = layer(found, memory, None)
        return found


class SeedProfiles(nn.Module):
    """The decoder of profiles, in torch's modules, and how counts are drawn."""

    def __init__(self, ours: ProfileDecoder, library: tuple[float, float], n_latent: int) -> None:
        super().__init__()
        self.mapping, self.scale, self.dropout = map(linear, (ours.mapping, ours.scale, ours.dropout))
        self.library1, self.library2 = linear(ours.library1), linear(ours.library2)
        self.hidden = nn.ModuleList(map(linear, cast("list[Dense]", list(ours.hidden))))
        self.log_theta, self.n_latent = ours.log_theta, n_latent
        self.library = Normal(torch.tensor(library[0]), torch.tensor(library[1]) ** 0.5)

    def forward(self, condition: Tensor) -> dict[str, Tensor]:
        """Draw a cell for every condition [B, d]: counts [B, G], and what they were drawn from."""
        latent, library = torch.randn(len(condition), self.n_latent), self.library.sample((len(condition), 1))
        mapped = self.mapping(condition)
        size = self.library2(F.gelu(self.library1(torch.cat((library, mapped), -1))))
        x = torch.cat((latent, mapped), -1)
        for layer in self.hidden:
            x = layer(x)
            x = F.gelu(F.layer_norm(x, x.shape[-1:]))
        rate, dropout, theta = size.exp() * self.scale(x).softmax(-1), self.dropout(x), self.log_theta.exp()
        drawn = Poisson(Gamma(theta, theta / rate).sample().clamp(max=_MOST)).sample()
        is_zero = torch.rand_like(drawn) <= dropout.sigmoid()
        found = {"latent": latent, "library": library, "rate": rate, "dropout": dropout}
        return {"counts": drawn.masked_fill(is_zero, 0.0), **found}


class SeedInstructCell(Engine):
    """Answers prompts with a cell, and writes cells."""

    def do_open(self, shape: str = "instructcell", threads: int = 2, packed: bool = False) -> Answer:
        """Draw the weights; `packed` gives Linears oneDNN's layout, which upstream does not."""
        torch.set_num_threads(threads)
        parts = random_instruct(shape, WEIGHTS_SEED)
        assert parts.decoder is not None
        self._tokens = parts.tokens
        self._profiles = SeedProfiles(parts.decoder, parts.library, parts.n_latent)
        self._tower, self._t5 = SeedTower(parts.tower), t5_of(parts.t5)
        self._embed = self._t5.get_input_embeddings()
        if packed:
            for module in (self._profiles, self._tower, self._t5):
                pack(module)
        return {
            "versions": versions("torch", "transformers"),
            "precision": "fp32",
            "threads": torch.get_num_threads(),
            "notes": f"T5 of transformers ({self._t5.config._attn_implementation}), the tower by torch's attention"
            f"{', Linears packed for oneDNN' if packed else ''}",
        }

    @torch.inference_mode()
    def do_annotate(
        self, prompts: list[list[int]], cells_file: str, cells: int, new_tokens: int, batch: int = 1,
        margins: bool = False,
    ) -> Answer:  # fmt: skip
        """Answer a prompt for each of the first cells of a file, or one prompt for all, `batch` at a time."""
        values = torch.from_numpy(counts(cells_file, cells))
        asked = prompts * cells if len(prompts) == 1 else prompts
        if len(asked) != cells:
            raise ValueError(f"{len(asked)} prompts for {cells} cells")
        found: list[Answer] = []
        for at in range(0, cells, batch):
            clock = StepClock()
            merged = self._merged(asked[at : at + batch], self._tower(values[at : at + batch]))
            found.append(self._write(*merged, new_tokens, clock, margins))
        return _joined(found)

    @torch.inference_mode()
    def do_generate(
        self, prompt: list[int], n: int, new_tokens: int, batch: int = 1, seed: int = 0, save: str = ""
    ) -> Answer:
        """Write n cells after one prompt without a cell; `save` keeps conditions, draws and counts as .npz."""
        texts: list[Answer] = []
        found: list[dict[str, Tensor]] = []
        condition_seconds = profile_seconds = 0.0
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for at in range(0, n, batch):
                clock = StepClock()
                embeds, mask = self._merged([prompt] * min(batch, n - at), None)
                texts.append(self._write(embeds, mask, new_tokens, clock, False))
                written = time.perf_counter()
                condition = self._condition(embeds, texts[-1]["tokens"])
                conditioned = time.perf_counter()
                found.append({"condition": condition, **self._profiles(condition)})
                condition_seconds += conditioned - written
                profile_seconds += time.perf_counter() - conditioned
        if save:
            np.savez(save, **{name: torch.cat([one[name] for one in found]).numpy() for name in found[0]})
        answer = _joined(texts)
        whole = answer["seconds"] + condition_seconds + profile_seconds
        times = {"text_seconds": answer["seconds"], "condition_seconds": condition_seconds}
        return {**answer, **times, "profile_seconds": profile_seconds, "seconds": whole, "n": n}

    def _merged(self, prompts: list[list[int]], features: Tensor | None) -> tuple[Tensor, Tensor]:
        """Put features [B, Q, d] in the place of placeholders; returns embeddings [B, S, d], padded, and their mask."""
        rows = [self._embed(torch.tensor(one)) for one in prompts]
        if features is not None:
            places = [one.index(self._tokens.placeholder) for one in prompts]
            rows = [
                torch.cat((row[:at], cell, row[at + 1 :])) for row, at, cell in zip(rows, places, features, strict=True)
            ]
        mask = [torch.ones(len(row), dtype=torch.int64) for row in rows]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), nn.utils.rnn.pad_sequence(mask, batch_first=True)

    def _write(self, embeds: Tensor, mask: Tensor, new_tokens: int, clock: StepClock, margins: bool) -> Answer:
        leads: list[Tensor] = []
        out = self._t5.generate(
            inputs_embeds=embeds,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=new_tokens,
            **watching(transformers, clock, (lambda logits: leads.append(_lead(logits))) if margins else None),
        )
        answer = clock.answer(out[:, 1:].tolist(), new_tokens)
        return answer | ({"margins": torch.stack(leads, 1).tolist()} if margins else {})

    def _condition(self, embeds: Tensor, tokens: list[list[int]]) -> Tensor:
        """Return the state of the signal after each text, [B, d], from a pass over all of it without a mask."""
        start, end = self._t5.config.decoder_start_token_id, self._tokens.signal
        ids = torch.tensor([[start, *one, end] for one in tokens])
        states = self._t5(inputs_embeds=embeds, decoder_input_ids=ids, output_hidden_states=True).decoder_hidden_states
        found: Tensor = states[-1][:, -1]
        return found


def _lead(logits: Tensor) -> Tensor:
    best = logits.float().topk(2).values
    return best[:, 0] - best[:, 1]


def _joined(answers: list[Answer]) -> Answer:
    """Add the times of batches and put their texts in one list."""
    found: dict[str, Any] = {
        name: sum(one[name] for one in answers) for name in ("seconds", "prefill_seconds")
    }  # fmt: skip
    lists = {"tokens", "margins", "step_seconds"} & set(answers[0])
    return found | {name: [row for one in answers for row in one[name]] for name in lists}


if __name__ == "__main__":
    serve(SeedInstructCell())
