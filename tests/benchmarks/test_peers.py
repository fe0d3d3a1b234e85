"""The peers' side of the benchmarks: agreement, the plain Llama's folder, the torch peer, what is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from peers import environments  # noqa: E402
from peers.agreement import compare  # noqa: E402
from peers.gguf_files import gguf_name, interleaved  # noqa: E402
from peers.registry import LLAMA_PEERS, REFERENCE, MissingPeerError, Peer, start  # noqa: E402
from peers.tiny_llama import SHAPES, random_prompts, tensor_shapes, write_llama  # noqa: E402


def test_agreement_tells_near_ties_from_differences() -> None:
    same = compare([[1, 2, 3]], [[1, 2, 3]])
    assert same.is_same()
    assert same.line() == "all tokens equal"
    margins = [[1.0, 1e-4, 1.0], [1.0, 1.0, 1.0]]
    tie = compare([[1, 9, 8], [4, 5, 6]], [[1, 2, 3], [4, 5, 6]], margins)
    assert tie.is_same()
    assert (tie.equal, tie.forced, tie.first_difference, tie.differing) == (4 / 6, 4 / 5, 1, 1)
    wrong = compare([[1, 2, 3], [9, 5, 6]], [[1, 2, 3], [4, 5, 6]], margins)
    assert not wrong.is_same()
    assert not compare([[1]], [[2]]).is_same()
    with pytest.raises(ValueError, match="different lengths"):
        compare([[1, 2]], [[1]])


def test_prompts_are_the_same_for_every_number_of_slots() -> None:
    assert random_prompts(8, 6, 300)[:2] == random_prompts(2, 6, 300)
    assert all(2 < token < 300 for row in random_prompts(8, 6, 300) for token in row)


def test_the_full_shape_is_tinyllama() -> None:
    sizes = tensor_shapes(SHAPES["tinyllama-1.1b"])
    assert sum(int(np.prod(size)) for size in sizes.values()) == 1_100_048_384


def test_the_folder_is_a_llama_that_transformers_runs(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the export extra is not installed")
    torch = pytest.importorskip("torch", reason="the export extra is not installed")
    folder = write_llama(tmp_path / "tiny", SHAPES["tiny"])
    assert write_llama(folder, SHAPES["tiny"]) == folder
    model, told = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    words = transformers.AutoTokenizer.from_pretrained(folder)
    assert words("w5 w299")["input_ids"] == [5, 299]
    with torch.inference_mode():
        logits = model(torch.tensor(random_prompts(4, 12, 300))).logits[:, -1]
    assert 1.0 < float(logits.std()) < 4.0
    assert float(logits[:, :3].abs().max()) == 0.0


@pytest.mark.parametrize("loop", ["generate", "growing", "static", "packed"])
def test_the_loops_of_the_torch_peer_write_the_same(loop: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the export extra is not installed")
    from peers.causal_torch import TorchCausal

    folder = write_llama(tmp_path / "tiny", SHAPES["tiny"])
    request = {"prompts": random_prompts(3, 7, 300), "new_tokens": 6}
    reference = TorchCausal()
    reference.do_open(str(folder), loop="growing")
    wanted = reference.do_generate(**request, margins=True)
    engine = TorchCausal()
    engine.do_open(str(folder), **({"packed": True} if loop == "packed" else {"loop": loop}))
    found = engine.do_generate(**request)
    assert compare(found["tokens"], wanted["tokens"], wanted["margins"]).is_same()
    assert len(found["step_seconds"]) == 5


def test_names_and_order_are_those_of_gguf() -> None:
    names = [gguf_name(name) for name in tensor_shapes(SHAPES["tiny"])]
    assert len(set(names)) == len(names)
    assert names[:2] == ["token_embd.weight", "blk.0.attn_norm.weight"]
    rows = np.arange(8, dtype=np.float32)[:, None]
    assert interleaved(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_every_peer_has_an_environment_and_a_module() -> None:
    assert REFERENCE in [peer.name for peer in LLAMA_PEERS]
    for peer in LLAMA_PEERS:
        pins = (environments.REQUIREMENTS / f"{peer.environment}.txt").read_text().split()
        assert all("==" in pin for pin in pins)
        assert (ROOT / "benchmarks" / f"{peer.module.replace('.', '/')}.py").is_file()


def test_a_peer_that_cannot_be_had_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "broken.txt").write_text("not a requirement ===\n")
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path / "requirements")
    monkeypatch.setitem(environments.RECIPES, "broken", environments.Recipe(("json",)))
    (tmp_path / "envs" / "broken" / "bin").mkdir(parents=True)
    (tmp_path / "envs" / "broken" / "bin" / "python").symlink_to(sys.executable)  # instead of a new environment
    peer = Peer("the broken one", "broken", "peers.causal_torch", "", 32)
    with pytest.raises(MissingPeerError, match="the broken one: the environment broken cannot be made: ") as caught:
        start(peer, folder=tmp_path)
    assert "\n" not in str(caught.value)
