"""A golden T5 of transformers on the backends that run one, with a tower that nothing asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sharing import made_once

torch = pytest.importorskip("torch", reason="the export extra is not installed")

from cellscribe.engine.backends.base import host_array  # noqa: E402
from cellscribe.engine.backends.cpu import cpu_problem  # noqa: E402
from cellscribe.engine.backends.cpu.instruct import CpuInstruct  # noqa: E402
from cellscribe.engine.backends.instruct import EncoderPrompt, InstructBackend  # noqa: E402
from cellscribe.engine.backends.onnxruntime_instruct import OnnxRuntimeInstruct  # noqa: E402
from cellscribe.engine.bundle import Bundle, open_bundle  # noqa: E402
from cellscribe.engine.instruct.writer import Asked, write_answers  # noqa: E402
from cellscribe.engine.text_writer import TextOptions  # noqa: E402
from cellscribe.engine.types import Sampling  # noqa: E402
from cellscribe.engine.verify_instruct import forced_logits  # noqa: E402
from cellscribe.export.checkpoint.instructcell import InstructParts, SpecialTokens  # noqa: E402
from cellscribe.export.checkpoint.sentencepiece import read_t5_tokenizer  # noqa: E402
from cellscribe.export.checkpoint.t5 import read_t5  # noqa: E402
from cellscribe.export.instruct_bundle import InstructSource, export_instruct  # noqa: E402
from cellscribe.export.models.bert import BertConfig  # noqa: E402
from cellscribe.export.models.instructcell import CellTower, TowerConfig  # noqa: E402

GENES = tuple(f"gene{i}" for i in range(12))


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "fixtures" / "t5_plain"


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    def make(path: Path) -> None:
        t5, tokenizer = read_t5(folder / "model"), read_t5_tokenizer(folder / "model")
        d = t5.config.d_model
        former = BertConfig(0, d, 1, t5.config.n_heads, d, 0, "gelu", 1e-12, d_memory=d)
        tower = CellTower(TowerConfig(len(GENES), 1, 2, 2, former, cross_every=1)).requires_grad_(False).eval()
        ids = (tokenizer.token_to_id(f"<extra_id_{i}>") for i in range(4))
        parts = InstructParts(t5, tower, None, (0.0, 1.0), 0, SpecialTokens(*ids))
        export_instruct(InstructSource(parts, tokenizer, GENES), path, "fp32", "t5", None, {}, lambda _: None)

    return open_bundle(made_once(tmp_path_factory, "t5-plain", make))


def native(bundle: Bundle) -> InstructBackend:
    if cpu_problem():
        pytest.skip(f"no native CPU library: {cpu_problem()}")
    return CpuInstruct(bundle)


@pytest.mark.parametrize("opened", [OnnxRuntimeInstruct, native])
def test_a_plain_t5_gives_the_golden_values(
    bundle: Bundle, folder: Path, opened: Callable[[Bundle], InstructBackend]
) -> None:
    backend = opened(bundle)
    given, wanted = (dict[str, Any](np.load(folder / f"{name}.npz")) for name in ("inputs", "expected"))
    masks = given["attention_mask"] > 0
    prompts = [EncoderPrompt(ids[mask]) for ids, mask in zip(given["input_ids"], masks, strict=True)]
    memories = backend.encode_prompts(prompts)
    for states, mask, theirs in zip(memories, masks, wanted["encoder_last_hidden_state"], strict=True):
        np.testing.assert_allclose(host_array(states), theirs[mask], atol=1e-4)
    valid, ids = wanted["step_valid"], wanted["generated_ids"][:, 1:]
    np.testing.assert_allclose(forced_logits(backend, memories, ids)[valid], wanted["step_logits"][valid], atol=5e-4)
    spec = bundle.manifest.instruct
    assert spec is not None
    options = TextOptions(Sampling(), ids.shape[1], 3, frozenset({1}))
    asked = [Asked(i, i, one) for i, one in enumerate(prompts)]
    longest = max(len(one.tokens) for one in prompts)
    for text in write_answers(backend, spec, asked, longest, options):
        i = text.request.index
        assert text.token_ids == [one for one in ids[i][valid[i]].tolist() if one != 1]
    assert bundle.manifest.tasks == ("annotate", "ask")
