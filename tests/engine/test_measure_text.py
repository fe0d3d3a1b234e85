"""Prompts about real cells, and texts that are followed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from cellscribe.engine.backends.onnxruntime_text import OnnxRuntimeText
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.errors import BundleError, InputError
from cellscribe.engine.measure_text import follow, real_prompts
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.verify_text import forced_logits


@pytest.fixture
def bundle(c2s_bundle: Path) -> Bundle:
    return open_bundle(c2s_bundle)


def texts(bundle: Bundle, prompts: tuple[np.ndarray, ...]) -> list[str]:
    return [bundle.tokenizer.decode(one.tolist()) for one in prompts]


def positions(bundle: Bundle, count: int) -> Bundle:
    """The bundle as if its context were of another length."""
    assert bundle.manifest.decoder is not None
    return replace(
        bundle, manifest=replace(bundle.manifest, decoder=replace(bundle.manifest.decoder, max_positions=count))
    )


def test_half_ask_for_the_type_and_half_are_gone_on_with(bundle: Bundle) -> None:
    found = real_prompts(bundle, None, 6, 16)
    assert found.source == "cells.h5ad"
    said = texts(bundle, found.tokens)
    assert [one.rstrip().endswith("Answer:") for one in said] == [True, False] * 3
    assert all("Genes: " in one.replace("\n", " ") for one in said[1::2])
    assert all(len(one) + 16 <= 1024 for one in found.tokens)
    assert len({one.tobytes() for one in found.tokens}) == 6


def test_cells_are_drawn_by_their_names(bundle: Bundle, tmp_path: Path) -> None:
    """Neither the order of a file plays a part, nor how many are drawn."""
    ad.read_h5ad(packaged_cells())[::-1].copy().write_h5ad(tmp_path / "turned.h5ad")
    found = [one.tolist() for one in real_prompts(bundle, None, 6, 16).tokens]
    assert [one.tolist() for one in real_prompts(bundle, tmp_path / "turned.h5ad", 6, 16).tokens] == found
    assert [one.tolist() for one in real_prompts(bundle, None, 3, 16).tokens] == found[:3]


@pytest.mark.parametrize("room", [64, 200, 500])
def test_a_short_context_names_fewer_genes(bundle: Bundle, room: int) -> None:
    short = positions(bundle, room)
    found = real_prompts(short, None, 4, 16).tokens
    assert all(2 <= len(one) <= room - 16 for one in found)
    if room > 64:
        assert max(map(len, found)) > (room - 16) * 0.6
        assert all("human cell" in one for one in texts(short, found))


def test_what_cannot_be_used_is_a_sentence(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="has 17 positions, too few"):
        real_prompts(positions(bundle, 17), None, 4, 16)
    with pytest.raises(InputError, match="check the name"):
        real_prompts(bundle, tmp_path / "no.h5ad", 4, 16)
    empty = ad.read_h5ad(packaged_cells())[:3].copy()
    empty.X = np.zeros(empty.shape, np.float32)
    empty.write_h5ad(tmp_path / "empty.h5ad")
    with pytest.raises(InputError, match="expresses a gene"):
        real_prompts(bundle, tmp_path / "empty.h5ad", 4, 16)


def test_a_text_is_followed_token_by_token(bundle: Bundle) -> None:
    backend, prompts = OnnxRuntimeText(bundle, 1), [np.arange(5, 30), np.arange(40, 53)]
    free = follow(backend, prompts, 6)
    assert (free.tokens == free.best).all()
    assert (free.logprobs <= 0).all()
    given = (free.tokens + 1) % 448
    along, logits = follow(backend, prompts, 6, given), forced_logits(backend, prompts, given)
    assert (along.tokens == given).all()
    assert (along.best == logits.argmax(-1)).all()
    assert (along.best[:, 0] == free.best[:, 0]).all()
    wide = logits.astype(np.float64)
    wanted = np.take_along_axis(wide, given[..., None], -1)[..., 0] - np.log(np.exp(wide).sum(-1))
    np.testing.assert_allclose(along.logprobs, wanted, atol=1e-4)
