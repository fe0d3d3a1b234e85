"""Our checkpoint folder: written, read back, read through a key map, and exported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cellscribe.engine.errors import BundleError, CheckpointError, OutputError, UsageError
from cellscribe.engine.verify import verify_bundle
from cellscribe.export import bundle as export
from cellscribe.export.checkpoint.lingocell import read_lingocell, save_cross_attention, write_about
from cellscribe.export.checkpoint.write import write_llama, write_scgpt
from cellscribe.export.parts import Parts
from cellscribe.export.random_model import random_parts


@pytest.fixture(scope="module")
def parts() -> Parts:
    return random_parts("lingocell-tiny", seed=1)


def save(parts: Parts, folder: Path) -> Path:
    assert parts.decoder is not None
    assert parts.decoder.cross_config is not None
    assert parts.prompt is not None
    write_scgpt(folder / "encoder", parts.encoder, parts.tokens)
    write_llama(folder / "decoder", parts.decoder, parts.tokenizer_json, bos_id=1, eos_id=2)
    save_cross_attention(parts.decoder, folder / "cross_attention.safetensors")
    write_about(folder, parts.decoder.cross_config, parts.cells, list(parts.input_genes or ()), parts.prompt)
    return folder


@pytest.fixture
def folder(parts: Parts, tmp_path: Path) -> Path:
    return save(parts, tmp_path / "checkpoint")


def test_a_saved_checkpoint_reads_back_exactly(parts: Parts, folder: Path) -> None:
    found = read_lingocell(folder)
    assert parts.decoder is not None
    assert found.cells == parts.cells
    assert found.input_genes == parts.input_genes
    assert found.prompt == parts.prompt
    for ours, theirs in ((found.scgpt.encoder, parts.encoder), (found.decoder, parts.decoder)):
        expected = theirs.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in ours.state_dict().items())


def test_a_training_file_reads_through_a_key_map(parts: Parts, folder: Path) -> None:
    expected = read_lingocell(folder)
    state = {f"cell_encoder.{k}": v for k, v in torch.load(folder / "encoder/best_model.pt", weights_only=True).items()}
    state |= {f"llm.{k}": v for k, v in load_file(folder / "decoder/model.safetensors").items()}
    for name, value in load_file(folder / "cross_attention.safetensors").items():
        _, layer, rest = name.split(".", 2)
        state[f"llm.model.layers.{layer}.cross_attn.{rest}"] = value
    state["optimiser_step"] = torch.tensor(3)
    torch.save({"epoch": 3, "model": {"weights": state}}, folder / "last.pt")
    for path in ("encoder/best_model.pt", "decoder/model.safetensors", "cross_attention.safetensors"):
        (folder / path).unlink()
    key_map = {
        "weights": "last.pt",
        "state_dict": "model.weights",
        "encoder": "cell_encoder.",
        "decoder": "llm.",
        "cross_attention": "llm.model.layers.{layer}.cross_attn.",
        "dropped": ["optimiser_step"],
    }
    path = folder / "keys.json"
    path.write_text(json.dumps(key_map))
    found = read_lingocell(folder, path)
    state_of = expected.decoder.state_dict()
    assert all(torch.equal(value, state_of[name]) for name, value in found.decoder.state_dict().items())

    path.write_text(json.dumps(key_map | {"dropped": []}))
    with pytest.raises(CheckpointError, match="optimiser_step under none"):
        read_lingocell(folder, path)
    path.write_text(json.dumps(key_map | {"state_dict": "ema"}))
    with pytest.raises(CheckpointError, match="no entry ema"):
        read_lingocell(folder, path)
    path.write_text(json.dumps(key_map | {"cross_attention": "llm.cross.{layer}"}))
    with pytest.raises(CheckpointError, match="must go on after"):
        read_lingocell(folder, path)
    bare = {name.removeprefix("llm."): value for name, value in state.items() if name != "optimiser_step"}
    torch.save({"model": bare}, folder / "last.pt", _use_new_zipfile_serialization=False)
    around = {"decoder": "", "cross_attention": "model.layers.{layer}.cross_attn.", "state_dict": "model"}
    path.write_text(json.dumps(key_map | around))
    again = read_lingocell(folder, path).decoder.state_dict()  # the decoder's prefix lies around the encoder's
    assert all(torch.equal(value, state_of[name]) for name, value in again.items())
    path.write_text(json.dumps({"weights": "last.pt"}))
    with pytest.raises(CheckpointError, match="must give weights, encoder"):
        read_lingocell(folder, path)


def edit_about(folder: Path, **changes: object) -> None:
    path = folder / "lingocell.json"
    about = json.loads(path.read_text())
    for key, value in changes.items():
        about[key] = {**about[key], **value} if isinstance(value, dict) and isinstance(about.get(key), dict) else value
    path.write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "version 2"),
        ({"cross_attention": {"n_layers": 3}}, "no tensor layers.1"),
        ({"cross_attention": {"n_layers": 9}}, "9 cross-attention layers of 4"),
        ({"cross_attention": {"d_memory": 7}}, "memory width 7"),
        ({"cross_attention": {"heads": 7}}, "does not know heads"),
        ({"cross_attention": {"bias": False}}, "does not use"),
        ({"cross_attention": {"gate": True}}, "no tensor layers.2.gate"),
        ({"cells": {"bins": 7}}, "cells does not know bins"),
        ({"prompt": {"text": 3}}, "prompt must be"),
    ],
)
def test_what_does_not_fit_is_named(folder: Path, changes: dict[str, object], said: str) -> None:
    edit_about(folder, **changes)
    with pytest.raises(CheckpointError, match=said):
        read_lingocell(folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input_genes": None}, "gives no input_genes"),
        ({"input_genes": ["NOT_A_GENE"]}, "not in the vocabulary, first NOT_A_GENE"),
        ({"cells": {"num_genes": 5}}, "lists 60 input genes where cells.num_genes is 5"),
    ],
)
def test_a_gene_list_must_fit(folder: Path, tmp_path: Path, changes: dict[str, object], said: str) -> None:
    edit_about(folder, **changes)
    with pytest.raises(CheckpointError, match=said):
        export.export_checkpoint(folder, tmp_path / "bundle", family="lingocell")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint"]


def test_an_exported_checkpoint_passes_its_own_check(folder: Path, tmp_path: Path) -> None:
    said: list[str] = []
    report = export.export_checkpoint(folder, tmp_path / "bundle", family="lingocell", progress=said.append)
    assert verify_bundle(str(tmp_path / "bundle")).passed
    assert report.manifest.parity is not None
    assert report.manifest.parity.source == "real cells of cells.h5ad"
    assert "checking parity with torch" in said
    text = (tmp_path / "bundle/manifest.json").read_text()
    assert str(tmp_path) not in text
    for name in ("encoder.onnx", "decoder.onnx"):
        assert str(Path.cwd()).encode() not in (tmp_path / "bundle" / name).read_bytes()


@pytest.mark.slow
def test_export_fails_and_leaves_nothing_when_parity_fails(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = export.decoder_reference

    def wrong(*args: object) -> dict[str, torch.Tensor]:
        found = real(*args)  # type: ignore[arg-type]
        return {**found, "logits": found["logits"] + torch.arange(found["logits"].shape[-1]) * 0.01}

    monkeypatch.setattr(export, "decoder_reference", wrong)
    with pytest.raises(BundleError, match="does not reproduce the torch model"):
        export.export_checkpoint(folder, tmp_path / "bundle", family="lingocell")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint"]


def test_an_existing_target_is_never_touched(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        export.export_checkpoint(folder, tmp_path / "bundle", family="lingocell")
    with pytest.raises(OutputError, match="does not exist"):
        export.export_checkpoint(folder, tmp_path / "no" / "bundle", family="lingocell")


def test_unknown_choices_are_refused(folder: Path, tmp_path: Path) -> None:
    for options, said in (
        ({"family": "gpt"}, "family 'gpt'"),
        ({"family": "lingocell", "precision": "int3"}, "precision is 'int3'"),
        ({"family": "lingocell", "cross_attention": "none"}, "cross-attention is 'none'"),
    ):
        with pytest.raises(UsageError, match=said):
            export.export_checkpoint(folder, tmp_path / "bundle", **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="lingocell-9t"):
        export.export_random("lingocell-9t", tmp_path / "bundle")
    with pytest.raises(CheckpointError, match="not a folder"):
        export.export_checkpoint(tmp_path / "nowhere", tmp_path / "bundle", family="lingocell")


def test_a_published_encoder_exports_alone_and_embeds(shared: Path, tmp_path: Path) -> None:
    report = export.export_checkpoint(shared / "fixtures/scgpt_base/ckpt", tmp_path / "b", family="scgpt")
    assert report.manifest.tasks == ("embed",)
    assert report.manifest.decoder is None
    import anndata as ad

    import cellscribe as cs

    cells = ad.read_h5ad(shared / "fixtures/scgpt_base/e2e_tiefree.h5ad")
    expected = np.load(shared / "fixtures/scgpt_base/e2e_expected.npz")["X_scGPT"]
    vectors = cs.load(tmp_path / "b").embed(cells, values="counts")
    assert np.abs(vectors - expected).max() < 5e-6
    with pytest.raises(BundleError, match="encoder alone"):
        cs.load(tmp_path / "b").describe(cells, values="counts")


def test_a_tokenizer_too_large_for_the_decoder_is_refused(folder: Path, tmp_path: Path) -> None:
    state = json.loads((folder / "decoder/tokenizer.json").read_text())
    state["model"]["vocab"]["Ġextra"] = 600
    (folder / "decoder/tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="601 tokens where the decoder has 600"):
        export.export_checkpoint(folder, tmp_path / "bundle", family="lingocell")


def test_cross_attention_tensors_of_other_layers_are_refused(folder: Path) -> None:
    path = folder / "cross_attention.safetensors"
    tensors = load_file(path)
    tensors["layers.0.q_proj.weight"] = tensors["layers.2.q_proj.weight"].clone()
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"layers\.0\.q_proj\.weight"):
        read_lingocell(folder)
    shutil.rmtree(folder)
