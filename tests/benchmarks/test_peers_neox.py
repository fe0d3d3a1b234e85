"""The plain GPT-NeoX of the benchmarks: its folder, its tokenizer, and peers that take prompts of different lengths."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from peers import shapes  # noqa: E402
from peers.agreement import compare  # noqa: E402
from peers.batches import BatchEngine, by_length  # noqa: E402
from peers.c2s_prompts import cell_prompts, type_prompts  # noqa: E402
from peers.gguf_files import by_part, gguf_name, reordered  # noqa: E402
from peers.protocol import Answer  # noqa: E402
from peers.tiny_neox import SHAPES, config, tensor_shapes, tokenizer, write_neox  # noqa: E402

TINY = SHAPES["tiny-neox"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-NeoX."""
    return shapes.write_model(tmp_path_factory.mktemp("neox") / "tiny-neox", "tiny-neox")


@pytest.fixture(scope="module")
def reference(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Prompts of different lengths, and what transformers writes after each alone."""
    pytest.importorskip("transformers", reason="the export extra is not installed")
    from peers.causal_torch import TorchCausal

    prompts = [one[:length] for one, length in zip(type_prompts(5), (9, 30, 12, 31, 5), strict=True)]
    request = {"prompts": prompts, "new_tokens": 6}
    engine = TorchCausal()
    engine.do_open(str(folder), loop="generate")
    return request, engine.do_complete(**request, batch=1, margins=True)


def test_the_full_shape_is_pythia() -> None:
    sizes = tensor_shapes(SHAPES["pythia-410m"])
    assert sum(int(np.prod(size)) for size in sizes.values()) == 405_334_016


def test_the_folder_is_a_gpt_neox_that_transformers_runs(folder: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the export extra is not installed")
    torch = pytest.importorskip("torch", reason="the export extra is not installed")
    assert write_neox(folder, TINY) == folder
    model, told = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.rope_parameters["partial_rotary_factor"] == TINY.rotary_pct
    words = transformers.AutoTokenizer.from_pretrained(folder)
    text = "Genes of one human cell: MALAT1 HLA-DRB1 é\n"
    assert words.decode(words(text)["input_ids"]) == text
    with torch.inference_mode():
        logits = model(torch.tensor([one[:40] for one in type_prompts(4)])).logits[:, -1]
    assert 1.0 < float(logits.std()) < 4.0
    assert float(logits[:, 0].abs().max()) == 0.0


def test_weights_are_drawn_under_their_names(tmp_path: Path) -> None:
    """Another number of layers leaves the others as they are, and biases are not forgotten."""
    safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    small = {"d_model": 8, "n_heads": 2, "d_ffn": 16, "vocab_size": 40}
    one, two = (
        safetensors.load_file(write_neox(tmp_path / str(n), type(TINY)(n_layers=n, **small)) / "model.safetensors")
        for n in (1, 2)
    )
    assert set(one) < set(two)
    assert all((one[name] == two[name]).all() for name in one)
    assert all(found.std() > 0 for found in two.values())


def test_symbols_fall_into_pieces_by_rule() -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    import json

    words = tokenizers.Tokenizer.from_str(json.dumps(tokenizer()))
    assert words.encode("Genes of MALAT1 S100A4").tokens == [
        "Genes", "Ġof", "ĠMA", "L", "AT", "1", "ĠS", "100", "A", "4",
    ]  # fmt: skip
    assert words.get_vocab_size() <= TINY.vocab_size


def test_prompts_are_as_long_as_those_of_pythia() -> None:
    """Pythia's own tokenizer makes 672 to 715 tokens, 691 in the mean."""
    lengths = [len(one) for one in type_prompts(64)]
    assert 660 <= min(lengths) <= max(lengths) <= 730
    assert np.mean(lengths) == pytest.approx(691, rel=0.02)
    texts = cell_prompts(12)
    assert len({tuple(one) for one in texts}) == 10  # the types of the packaged cells, and two of them again
    with pytest.raises(ValueError, match="999 cells are asked for and there are"):
        type_prompts(999)


def test_fused_weights_are_sorted_by_part_for_gguf() -> None:
    rows = np.arange(12, dtype=np.float32)
    assert by_part(rows, 2).tolist() == [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]
    name, settings = "gpt_neox.layers.0.attention.query_key_value.weight", {"num_attention_heads": 2}
    assert reordered(name, rows[:, None], settings)[:, 0].tolist() == by_part(rows, 2).tolist()
    names = [gguf_name(one) for one in tensor_shapes(TINY)]
    assert len(set(names)) == len(names)
    assert {"blk.1.attn_qkv.bias", "output_norm.bias", "output.weight"} < set(names)
    assert config(TINY)["rotary_pct"] == 0.25


@pytest.mark.parametrize("way", ["generate", "growing", "packed"])
@pytest.mark.parametrize("batch", [2, 8])
def test_padded_batches_write_what_single_prompts_do(
    way: str, batch: int, folder: Path, reference: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    from peers.causal_torch import TorchCausal

    request, wanted = reference
    engine = TorchCausal()
    engine.do_open(str(folder), **({"loop": "growing", "packed": True} if way == "packed" else {"loop": way}))
    found = engine.do_complete(**request, batch=batch)
    assert compare(found["tokens"], wanted["tokens"], wanted["margins"]).is_same()
    assert len(found["step_seconds"]) == -(-5 // batch) * 5
    assert found["seconds"] >= found["prefill_seconds"] + sum(found["step_seconds"]) > 0


def test_the_static_loop_refuses_other_lengths(folder: Path) -> None:
    pytest.importorskip("transformers", reason="the export extra is not installed")
    from peers.causal_torch import TorchCausal

    engine = TorchCausal()
    engine.do_open(str(folder), loop="static")
    with pytest.raises(ValueError, match="prompts of one length"):
        engine.do_generate([[1, 2], [3]], 2)


@pytest.mark.usefixtures("native_library")
def test_ours_writes_what_transformers_writes(
    folder: Path, tmp_path: Path, reference: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    from peers import ours_c2s

    request, wanted = reference
    made = tmp_path / "bundle"
    made.mkdir()
    ours_c2s.convert(folder, made, "fp32")
    engine = ours_c2s.OurC2s()
    assert engine.do_open(str(made))["precision"] == "fp32"
    found = engine.do_complete(**request, batch=2)
    assert compare(found["tokens"], wanted["tokens"], wanted["margins"]).is_same()
    assert len(found["step_seconds"]) >= 15  # three batches of texts of one length, 5 steps each
    assert found["seconds"] >= found["prefill_seconds"] + sum(found["step_seconds"]) > 0


def test_batches_come_back_in_the_order_of_the_prompts() -> None:
    class Echo(BatchEngine):
        def __init__(self) -> None:
            self.batches: list[list[int]] = []

        def do_generate(self, prompts: list[list[int]], new_tokens: int) -> Answer:
            self.batches.append([len(one) for one in prompts])
            tokens = [[one[0]] * new_tokens for one in prompts]
            return {"tokens": tokens, "seconds": 1.0, "prefill_seconds": 0.5, "step_seconds": [0.25] * (new_tokens - 1)}

    engine = Echo()
    found = engine.do_complete([[1], [2, 2], [3, 3, 3], [4, 4]], 3, batch=3)
    assert engine.batches == [[3, 2, 2], [1]]
    assert found["tokens"] == [[1] * 3, [2] * 3, [3] * 3, [4] * 3]
    assert (found["seconds"], found["prefill_seconds"], found["step_seconds"]) == (2.0, 1.0, [0.25] * 4)
    assert by_length([[1], [2, 2], [3, 3]]) == [1, 2, 0]
