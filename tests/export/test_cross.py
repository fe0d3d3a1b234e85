from __future__ import annotations

import numpy as np
import pytest
import torch

from cellscribe.export.models.cross import LatentCross, MaterialisedCross, latent_is_cheaper
from cellscribe.export.models.lingocell import CrossAttention, CrossConfig, DecoderConfig
from cellscribe.kernels.reference.latent_cross import latent_cross_attention

DECODER = DecoderConfig(10, d_model=24, n_layers=2, n_heads=4, n_kv_heads=2, d_ffn=8)


def block(**options: object) -> CrossAttention:
    torch.manual_seed(0)
    made = CrossAttention(DECODER, CrossConfig(n_layers=1, d_memory=12, **options))  # type: ignore[arg-type]
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return made.requires_grad_(False)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": True},
        {"n_heads": 4, "n_kv_heads": 4},
        {"n_heads": 4, "n_kv_heads": 1, "d_head": 3},
        {"norm": "none"},
        {"norm": "query+memory", "bias": True, "gate": True},
    ],
)
def test_the_latent_form_equals_the_materialised_one(options: dict[str, object]) -> None:
    cross = block(**options)
    x, memory = torch.randn(3, 5, 24), torch.randn(3, 7, 12)
    bias = torch.zeros(3, 1, 7)
    bias[1, :, 4:] = -1e30
    plain, weights = cross(x, memory, bias.unsqueeze(1))
    keys, values = cross.keys_values(memory)
    materialised = MaterialisedCross(cross)(x, keys, values, bias)
    if cross.memory_norm is not None:
        memory = torch.nn.functional.layer_norm(memory, (12,), eps=cross.memory_norm.eps)
    latent = LatentCross(cross)(x, memory, bias)
    for y, w in (materialised, latent):
        assert torch.allclose(y, plain, atol=2e-5)
        assert torch.allclose(w, weights, atol=1e-5)


def test_the_numpy_reference_equals_the_traced_form_and_ignores_poisoned_padding() -> None:
    cross = block(n_heads=4, n_kv_heads=4, norm="none")
    latent = LatentCross(cross)
    x, memory = torch.randn(3, 1, 24), torch.randn(3, 9, 12)
    attended = np.arange(9) < np.array([9, 1, 4])[:, None]
    bias = torch.where(torch.from_numpy(attended), 0.0, -1e30)[:, None]
    q = cross.queries(x).reshape(3, 4, 1, -1)  # [B, H, 1, D]
    absorbed = torch.einsum("bhtd,hdm->bhtm", q, latent.key).numpy()
    poisoned = memory.numpy().copy()
    poisoned[~attended] = np.nan
    mixed, weights = latent_cross_attention(absorbed, poisoned, attended)
    y, traced = latent(x, memory, bias)
    assert np.abs(weights - traced.numpy()).max() < 1e-6
    heads = torch.einsum("bhtm,hmd->bhtd", torch.from_numpy(mixed).float(), latent.value)
    assert torch.allclose(cross.finish(heads[:, :, None]), y, atol=1e-5)


def test_an_empty_slot_gives_zeros() -> None:
    mixed, weights = latent_cross_attention(np.ones((1, 2, 1, 3)), np.full((1, 4, 3), np.nan), np.zeros((1, 4), bool))
    assert not mixed.any()
    assert not weights.any()


@pytest.mark.parametrize(
    ("n_kv_heads", "d_memory", "latent"), [(32, 512, True), (4, 512, False), (32, 4096, False), (32, 64, True)]
)
def test_the_form_is_chosen_by_cost(n_kv_heads: int, d_memory: int, latent: bool) -> None:
    assert latent_is_cheaper(32, n_kv_heads, 64, d_memory) is latent
