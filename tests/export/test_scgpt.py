"""The encoder against values computed by scGPT itself, in torch and through ONNX Runtime."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from cellscribe.engine.errors import CheckpointError
from cellscribe.export.checkpoint.scgpt import read_scgpt
from cellscribe.export.graphs import EncoderGraph
from cellscribe.export.models.scgpt import ScgptConfig, ScgptEncoder
from cellscribe.export.trace import trace_encoder

CASES = [
    ("scgpt_base/ckpt", "scgpt_base/fixed.npz"),
    ("scgpt_base/ckpt", "scgpt_base/ragged.npz"),
    ("scgpt_category/ckpt", "scgpt_category/fixed.npz"),
    ("scgpt_category/ckpt", "scgpt_category/ragged_cls0.npz"),
    *(
        (f"scgpt_namings/ckpt_{n}", f"scgpt_namings/{f}.npz")
        for n in ("wqkv", "impl_wqkv", "in_proj")
        for f in ("fixed", "ragged")
    ),
]


@pytest.fixture(scope="module")
def sessions(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ort.InferenceSession]:
    folder = tmp_path_factory.mktemp("encoders")
    made = {}
    for name in sorted({checkpoint for checkpoint, _ in CASES}):
        path = folder / (name.replace("/", "_") + ".onnx")
        trace_encoder(EncoderGraph(read_scgpt(shared / "fixtures" / name).encoder), path)
        made[name] = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return made


@pytest.mark.parametrize(("checkpoint", "values"), CASES)
def test_token_states_and_cell_embeddings_equal_upstream(
    sessions: dict[str, ort.InferenceSession], shared: Path, checkpoint: str, values: str
) -> None:
    expected = np.load(shared / "fixtures" / values)
    real = ~expected["padding_mask"]
    feed = {"genes": expected["gene_ids"], "values": expected["values"].astype(np.float32), "mask": real}
    memory, cell = sessions[checkpoint].run(["memory", "cell"], feed)
    assert np.abs(cell - expected["cell_emb"]).max() <= 5e-5
    if "transformer_output" in expected:
        assert np.abs(memory - expected["transformer_output"])[real].max() <= 5e-5


def test_the_graph_keeps_the_contract_of_every_bundle(sessions: dict[str, ort.InferenceSession]) -> None:
    session = sessions["scgpt_base/ckpt"]
    assert {i.name: i.type for i in session.get_inputs()} == {
        "genes": "tensor(int64)",
        "values": "tensor(float)",
        "mask": "tensor(bool)",
    }
    assert {o.name: len(o.shape) for o in session.get_outputs()} == {"memory": 3, "cell": 2}


def test_scaling_multiplies_the_gene_by_its_value() -> None:
    torch.manual_seed(0)
    encoder = ScgptEncoder(ScgptConfig(20, d_model=8, n_layers=0, n_heads=2, d_ffn=8, value_style="scaling"))
    genes, values = torch.tensor([[1, 2, 3]]), torch.tensor([[0.0, 2.0, -1.5]])
    memory, _ = encoder(genes, values, torch.ones(1, 3, dtype=torch.bool))
    assert torch.equal(memory, encoder.genes(genes) * values[..., None])


def test_padding_below_zero_is_harmless_to_the_value_table() -> None:
    torch.manual_seed(0)
    encoder = ScgptEncoder(
        ScgptConfig(20, d_model=8, n_layers=1, n_heads=2, d_ffn=8, value_style="category", n_value_tokens=5)
    )
    genes, mask = torch.tensor([[1, 2, 3]]), torch.tensor([[True, True, False]])
    seen = [encoder(genes, torch.tensor([[0.0, 2.0, pad]]), mask)[0][:, :2] for pad in (-2.0, 4.0)]
    assert torch.allclose(*seen, atol=1e-6)


@pytest.fixture
def folder(shared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shared / "fixtures/scgpt_base/ckpt", tmp_path / "ckpt", copy_function=shutil.copyfile))


def edit(folder: Path, change) -> None:  # type: ignore[no-untyped-def]
    state = torch.load(folder / "best_model.pt", weights_only=True)
    change(state)
    torch.save(state, folder / "best_model.pt")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda s: s.pop("transformer_encoder.layers.1.self_attn.Wqkv.weight"),
            "no tensor .*layers.1.self_attn.in_proj",
        ),
        (lambda s: s.update({"bn.weight": torch.ones(3)}), "does not use .*bn.weight"),
        (lambda s: s.update({"transformer_encoder.layers.9.norm1.weight": torch.ones(64)}), "does not use"),
        (lambda s: s.update({"encoder.embedding.weight": torch.ones(5, 64)}), "is \\(5, 64\\) where"),
        (lambda s: s.clear(), "no tensor"),
    ],
)
def test_loading_is_strict(folder: Path, change, said: str) -> None:  # type: ignore[no-untyped-def]
    edit(folder, change)
    with pytest.raises(CheckpointError, match=said):
        read_scgpt(folder)


@pytest.mark.parametrize("name", ["args.json", "vocab.json", "best_model.pt"])
def test_a_missing_or_damaged_file_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:50])
    with pytest.raises(CheckpointError, match=name):
        read_scgpt(folder)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        read_scgpt(folder)


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code ran",)


def test_a_pickle_with_code_is_refused_and_not_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "best_model.pt").write_bytes(pickle.dumps({"weight": Payload()}))
    with pytest.raises(CheckpointError, match="more than plain tensors"):
        read_scgpt(folder)
    torch.save({"weight": Payload()}, folder / "best_model.pt")
    with pytest.raises(CheckpointError, match="more than plain tensors"):
        read_scgpt(folder)
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize("change", [{"A": 1, "B": 1}, {"A": 0}, {"<pad>": 0, "A": 1}, []])
def test_a_vocabulary_must_number_its_tokens(folder: Path, change: object) -> None:
    (folder / "vocab.json").write_text(json.dumps(change))
    with pytest.raises(CheckpointError, match=r"vocab\.json"):
        read_scgpt(folder)


def test_the_cell_input_of_a_published_folder_is_the_ragged_one(folder: Path) -> None:
    cells = read_scgpt(folder).cells
    assert (cells.layout, cells.selection, cells.cls_value, cells.n_bins) == ("ragged", "all", -2.0, 51)
    assert cells.target_sum is None
    assert not cells.log1p
