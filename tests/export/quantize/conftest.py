"""What the tests of quantised bundles share; without the export extra only the arithmetic is tested."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from sharing import made_once

MISSING = [name for name in ("torch", "onnx", "onnxscript") if find_spec(name) is None]
collect_ignore_glob = ["test_data_file.py", "test_graph.py", "test_quantize_*.py"] if MISSING else []

Quantize = Callable[[Path, str], Path]


@pytest.fixture(scope="session")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Quantize:
    """Quantise a bundle once per precision: quantized(source, "int4")."""
    made: dict[tuple[Path, str], Path] = {}

    def make(source: Path, precision: str) -> Path:
        from cellscribe.export.quantize.bundle import quantize_bundle

        if (source, precision) not in made:
            name = f"{source.name}-{precision}"
            made[source, precision] = made_once(
                tmp_path_factory, name, lambda folder: quantize_bundle(source, folder, precision)
            )
        return made[source, precision]

    return make


def _gemma2(folder: Path) -> Path:
    """A Gemma-2 of random weights with all its habits, a context of 320 and a tokenizer of single letters."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {one: i for i, one in enumerate(["<eos>", "<unk>", " ", *map(chr, range(33, 127))])}
    config = transformers.Gemma2Config(
        vocab_size=len(words), bos_token_id=0, eos_token_id=0, pad_token_id=0, hidden_size=96, num_attention_heads=4,
        num_key_value_heads=2, num_hidden_layers=3, intermediate_size=160, head_dim=32, query_pre_attn_scalar=24,
        sliding_window=40, max_position_embeddings=320, attn_logit_softcapping=20.0, final_logit_softcapping=10.0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_(std=0.1)
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session", params=["c2s_gpt2", "c2s_neox", "gemma2"])
def text_checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of the family c2s: the golden GPT-2 and GPT-NeoX, and a random Gemma-2."""
    if request.param == "gemma2":
        pytest.importorskip("transformers", reason="the export extra is not installed")
        return _gemma2(tmp_path_factory.mktemp("checkpoints") / "gemma2")
    shared: Path = request.getfixturevalue("shared")
    return shared / "fixtures" / request.param / "model"


@pytest.fixture(scope="session")
def text_bundle(text_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fp32 bundle of a checkpoint."""
    from cellscribe.export.bundle import export_checkpoint

    name = "gemma2" if text_checkpoint.name == "gemma2" else text_checkpoint.parent.name
    return made_once(tmp_path_factory, f"text-{name}", lambda at: export_checkpoint(text_checkpoint, at, family="c2s"))
