"""Instructions that are answered without a cell are named, and the other cells keep their names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from instruct_bundles import GoldenInstructCell

import cellscribe as cs
from cellscribe.engine.instruct.templates import GENERATION
from cellscribe.engine.instruct.writing import CellOrder, write_cells
from cellscribe.engine.instruct_model import InstructModel


@pytest.fixture
def mixed(instruct_bundle: Path, shared: Path, tmp_path: Path) -> InstructModel:
    """A model whose second instruction is answered without a cell."""
    golden = GoldenInstructCell(shared).case("cpcg").instructions[0]
    (tmp_path / "t.json").write_text(json.dumps({GENERATION: [golden, "What is a cell?"]}))
    return InstructModel(cs.load(instruct_bundle).bundle, templates=tmp_path / "t.json")


def test_the_instruction_without_a_cell_is_named(mixed: InstructModel) -> None:
    cells, said = write_cells(mixed, CellOrder(12, draws=True))
    assert 0 < cells.n_obs < 12
    assert f"{12 - cells.n_obs} answer" in said
    assert "had no cell, first to 'What is a cell?' (it said " in said
    assert cells.obs_names.tolist() != [f"generated_{i}" for i in range(cells.n_obs)]  # gaps


def test_the_prompt_is_kept(mixed: InstructModel) -> None:
    drawn, _ = write_cells(mixed, CellOrder(12, draws=True))
    assert drawn.obs["prompt"].astype(str).str.startswith("User:\nWould you be able to share a gene profile").all()
    assert "prompt" not in drawn.uns["cellscribe"]
    one, _ = write_cells(mixed, CellOrder(2, number=0))
    assert one.uns["cellscribe"]["prompt"] == drawn.obs["prompt"].iloc[0]
    assert "prompt" not in one.obs
    assert one.uns["cellscribe"]["templates"] == "t.json"


def test_tasks_of_ones_own_are_told(instruct_bundle: Path, tmp_path: Path) -> None:
    bundle, path = cs.load(instruct_bundle).bundle, tmp_path / "t.json"
    path.write_text(json.dumps({"cell_type_anotation": ["Name {cell}."], GENERATION: ["What is a cell?"]}))
    model = InstructModel(bundle, templates=path)
    model.about_prompts(["a"], ["What is a cell?"])
    assert "tasks of their own, used only where they are named: 'cell_type_anotation' (is 'cell_type_" in model.notice
    named = InstructModel(bundle, templates=path, template_task="cell_type_anotation")
    named.about_prompts(["a"], ["What is a cell?"])
    assert "tasks of their own" not in named.notice


def test_few_prompts_are_kept(instruct_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellscribe.engine.instruct.prompts._KEPT", 2)
    prompts = InstructModel(cs.load(instruct_bundle).bundle).prompts
    found = [prompts.encode(text, has_cell=False) for text in ("a", "b", "cell", "a", "cell")]
    assert len(prompts._known) == 2
    assert found[2] is found[4]
    assert found[0].tokens.tolist() == found[3].tokens.tolist()
