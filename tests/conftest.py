"""Fixtures that every test may use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from building import device_library, emulated_library, has_gpu
from sharing import made_once


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of golden values and real cells; the test is skipped where it is absent."""
    named = os.environ.get("CELLSCRIBE_SHARED")
    beside = Path(__file__).resolve().parents[1].parent / "shared"
    folder = Path(named) if named else beside
    if not (folder / "fixtures").is_dir():
        pytest.skip("no folder of golden values: set CELLSCRIBE_SHARED or put `shared` beside the repository")
    return folder


def _export(tmp_path_factory: pytest.TempPathFactory, **options: str) -> Path:
    """A tiny LingoCell with random weights."""
    pytest.importorskip("torch", reason="the export extra is not installed")
    from cellscribe.export.bundle import export_random

    name = "_".join(["tiny", *options.values()])
    return made_once(tmp_path_factory, name, lambda folder: export_random("lingocell-tiny", folder, **options))


def _quantise(tmp_path_factory: pytest.TempPathFactory, bundle: Path, precision: str) -> Path:
    from cellscribe.export.quantize.bundle import quantize_bundle

    return made_once(
        tmp_path_factory, f"{bundle.name}_{precision}", lambda folder: quantize_bundle(bundle, folder, precision)
    )


@pytest.fixture(scope="session")
def tiny_langcell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LangCell with random weights and all genes."""
    pytest.importorskip("torch", reason="the export extra is not installed")
    from cellscribe.export.bundle import export_random

    return made_once(tmp_path_factory, "tiny-langcell", lambda folder: export_random("langcell-tiny", folder))


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny fp32 bundle, latent cross-attention."""
    return _export(tmp_path_factory, cross_attention="latent")


@pytest.fixture(scope="session")
def tiny_bundle_materialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny fp32 bundle, materialised cross-attention."""
    return _export(tmp_path_factory, cross_attention="materialised")


@pytest.fixture(scope="session")
def tiny_bundle_fp16(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny fp16 bundle."""
    return _export(tmp_path_factory, cross_attention="latent", precision="fp16")


@pytest.fixture(scope="session")
def tiny_bundle_int8(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    """A tiny bundle with weights of 8 bits."""
    return _quantise(tmp_path_factory, tiny_bundle, "int8")


@pytest.fixture(scope="session")
def tiny_bundle_int4(tmp_path_factory: pytest.TempPathFactory, tiny_bundle_materialised: Path) -> Path:
    """A tiny bundle with weights of 4 bits and materialised cross-attention."""
    return _quantise(tmp_path_factory, tiny_bundle_materialised, "int4")


@pytest.fixture(scope="session")
def emulated_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of kernels, compiled for the emulator."""
    return made_once(tmp_path_factory, "emulated.so", emulated_library)


@pytest.fixture(scope="session")
def device_kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of kernels, compiled for the GPU of this machine; the test is skipped where there is none."""
    if not has_gpu():
        pytest.skip("needs an NVIDIA GPU")
    return device_library(tmp_path_factory.mktemp("kernels") / "device.so")


@pytest.fixture(scope="session")
def native_library() -> None:
    """Skip the test where the native CPU library was not built, or does not run."""
    from cellscribe.engine.backends.cpu import cpu_problem

    problem = cpu_problem()
    if problem:
        pytest.skip(f"no native CPU library: {problem}")


def _export_golden(shared: Path, tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    pytest.importorskip("torch", reason="the export extra is not installed")
    from cellscribe.export.bundle import export_checkpoint

    checkpoint = shared / "fixtures" / f"c2s_{name}" / "model"
    return made_once(tmp_path_factory, name, lambda folder: export_checkpoint(checkpoint, folder, family="c2s"))


@pytest.fixture(scope="session")
def c2s_bundle(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the golden GPT-NeoX, whose weights are random and whose context holds 1,024 tokens."""
    return _export_golden(shared, tmp_path_factory, "neox")


@pytest.fixture(scope="session")
def c2s_gpt2_bundle(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the golden GPT-2, which has learned positions, 256 of them."""
    return _export_golden(shared, tmp_path_factory, "gpt2")


@pytest.fixture(scope="session")
def gemma(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A bundle of a Gemma-2 of random weights, and the model: 8,192 positions; some layers see the last 700."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch = pytest.importorskip("torch", reason="the export extra is not installed")
    from cellscribe.export.bundle import export_checkpoint

    config = transformers.Gemma2Config(
        vocab_size=448, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3,
        intermediate_size=48, head_dim=16, query_pre_attn_scalar=24, sliding_window=700, max_position_embeddings=8192,
        bos_token_id=0, eos_token_id=0, pad_token_id=0, attn_logit_softcapping=3.0, final_logit_softcapping=8.0,
    )  # fmt: skip
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_(std=0.3)
    folder = tmp_path_factory.mktemp("gemma")
    model.save_pretrained(folder / "model")
    shutil.copy(shared / "fixtures" / "c2s_neox" / "model" / "tokenizer.json", folder / "model")
    export_checkpoint(folder / "model", folder / "bundle", family="c2s")
    return folder / "bundle", model


@pytest.fixture(scope="session")
def instruct_bundle(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the golden InstructCell, which reads 500 genes."""
    return _instruct_bundle(shared, tmp_path_factory, "fp32")


@pytest.fixture(scope="session")
def instruct_bundle_fp16(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in half precision."""
    return _instruct_bundle(shared, tmp_path_factory, "fp16")


def _instruct_bundle(shared: Path, tmp_path_factory: pytest.TempPathFactory, precision: str) -> Path:
    pytest.importorskip("torch", reason="the export extra is not installed")
    from instruct_bundles import GoldenInstructCell

    from cellscribe.export.bundle import export_checkpoint

    golden = GoldenInstructCell(shared)

    def make(folder: Path) -> None:
        genes = folder.with_suffix(".genes.txt")
        genes.write_text("\n".join(golden.genes))
        export_checkpoint(golden.checkpoint, folder, family="instructcell", precision=precision, genes=genes)

    return made_once(tmp_path_factory, f"instructcell_{precision}", make)
