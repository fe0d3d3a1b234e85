"""The plain decoder against greedy ids and logits of transformers, through ONNX Runtime with a static cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from cellscribe.engine.errors import CheckpointError
from cellscribe.export.checkpoint.llama import llama_state, read_llama_config
from cellscribe.export.checkpoint.weights import load_strict, read_folder_weights
from cellscribe.export.graphs import DecoderGraph
from cellscribe.export.models.lingocell import LingoDecoder
from cellscribe.export.trace import cache_names, trace_decoder

CAPACITY = 160


def read(folder: Path) -> LingoDecoder:
    config = read_llama_config(folder)
    decoder = LingoDecoder(config)
    load_strict(decoder, llama_state(read_folder_weights(folder), config, str(folder)), str(folder))
    return decoder.eval()


@pytest.fixture(scope="module")
def session(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> ort.InferenceSession:
    path = tmp_path_factory.mktemp("llama") / "decoder.onnx"
    trace_decoder(DecoderGraph(read(shared / "fixtures/llama_plain/model"), "latent"), path, torch.float32)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class PlainText:
    """Runs the graph by feeding its caches back."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self.session, self.names = session, cache_names(4)
        self.caches = {name: np.zeros((1, 2, CAPACITY, 16), np.float32) for name in self.names}
        self.length = 0

    def run(self, tokens: list[int]) -> np.ndarray:
        positions = np.arange(self.length, self.length + len(tokens))[None]
        feed = {
            "tokens": np.array([tokens]),
            "positions": positions,
            "mask": np.arange(CAPACITY)[None, None] <= positions[:, :, None],
            **self.caches,
        }
        if "hidden" in {i.name for i in self.session.get_inputs()}:
            feed["hidden"] = np.zeros((1, 0, 128), np.float32)
        logits, *caches = self.session.run(["logits", *(f"new_{n}" for n in self.names)], feed)
        self.caches = dict(zip(self.names, caches, strict=True))
        self.length += len(tokens)
        return logits[0, -1]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_greedy_text_equals_transformers_token_for_token(
    session: ort.InferenceSession, shared: Path, number: int
) -> None:
    folder = shared / "fixtures/llama_plain"
    prompt = json.loads((folder / "expected.json").read_text())["prompts"][number]
    expected = np.load(folder / "expected.npz")["logits"][number]
    text, tokens, chosen = PlainText(session), prompt["input_ids"], []
    for step in range(len(prompt["new_ids"])):
        logits = text.run(tokens)
        assert np.abs(logits - expected[step]).max() <= 5e-4
        tokens = [int(logits.argmax())]
        chosen += tokens
    assert chosen == prompt["new_ids"]


def test_a_decoder_with_silent_cross_attention_is_the_plain_llama(shared: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = shared / "fixtures/llama_plain/model"
    upstream = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    from cellscribe.export.models.lingocell import CrossConfig

    plain = read(folder)
    silent = LingoDecoder(plain.config, CrossConfig(n_layers=2, d_memory=8, bias=True))
    silent.load_state_dict(plain.state_dict(), strict=False)
    for layer in silent.layers:
        if layer.cross is not None:
            layer.cross.out.weight.data.zero_()
    tokens = torch.randint(3, 500, (2, 30), generator=torch.Generator().manual_seed(0))
    memory, mask = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    with torch.no_grad():
        ours, _ = silent.forward_train(tokens, memory, mask)
        theirs = upstream(tokens).logits
    assert (ours - theirs).abs().max() < 5e-4
    assert (ours.argmax(-1) == theirs.argmax(-1)).all()


def test_sharded_and_pickled_weights_read_the_same(shared: Path, tmp_path: Path) -> None:
    source = shared / "fixtures/llama_plain/model"
    whole = read_folder_weights(source)
    names = sorted(whole)
    shutil.copyfile(source / "config.json", tmp_path / "config.json")
    index = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"pytorch_model-{number}.bin"
        torch.save({n: whole[n] for n in part}, tmp_path / file)
        index |= dict.fromkeys(part, file)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    again = read_folder_weights(tmp_path)
    assert all(torch.equal(whole[n], again[n]) for n in names)
    (tmp_path / "pytorch_model-1.bin").unlink()
    with pytest.raises(CheckpointError, match="names the shard"):
        read_folder_weights(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "mistral"}, "must be a Llama"),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "rope scaling 'llama3'"),
        ({"head_dim": 99}, "head_dim"),
        ({"num_key_value_heads": 3}, "do not divide"),
        ({"hidden_size": None}, "lacks or garbles"),
        ({"partial_rotary_factor": 0.5}, "partial rotary"),
        ({"rope_scaling": {"rope_type": "default"}, "rope_parameters": {"rope_type": "yarn"}}, "rope scaling 'yarn'"),
    ],
)
def test_a_feature_the_decoder_lacks_is_refused(
    shared: Path, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    config = json.loads((shared / "fixtures/llama_plain/model/config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=said):
        read_llama_config(tmp_path)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no model\.safetensors"):
        read_folder_weights(tmp_path)


def test_damaged_safetensors_are_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00 not json at all")
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        read_folder_weights(tmp_path)
