"""LangCell as a user meets it: golden values, labels of real cells, vectors, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from anndata import read_h5ad
from rank_bundles import GoldenLangCell, golden_checkpoint
from sharing import made_once

import cellscribe as cs
from cellscribe.engine.backends.cpu import cpu_problem
from cellscribe.engine.backends.cpu.match import CpuMatch
from cellscribe.engine.backends.match import MatchBackend
from cellscribe.engine.backends.onnxruntime_match import OnnxRuntimeMatch
from cellscribe.engine.backends.onnxruntime_match_cuda import OnnxRuntimeMatchCuda
from cellscribe.engine.backends.sessions import Device
from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.errors import BackendError, BundleError, InputError, UsageError
from cellscribe.engine.labels import Labels
from cellscribe.engine.matching.zero_shot import ZeroShot, label_scores
from cellscribe.engine.packaged import packaged_cells
from cellscribe.engine.rank_model import label_texts
from cellscribe.engine.verify_match import verify_match_bundle
from cellscribe.kernels.cpu_library import instruction_sets

pytest.importorskip("torch", reason="the export extra is not installed")

LABELS = {"B cell": "CL:0000236", "monocyte": "CL:0000576", "natural killer cell": None}


@pytest.fixture(scope="session")
def golden_bundle(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cellscribe.export.bundle import export_checkpoint

    def make(folder: Path) -> None:
        checkpoint = golden_checkpoint(shared, tmp_path_factory.mktemp("langcell") / "checkpoint")
        export_checkpoint(checkpoint, folder, family="langcell")

    return made_once(tmp_path_factory, "golden-langcell", make)


@pytest.fixture(params=["onnxruntime-cpu", "onnxruntime-cuda", *(instruction_sets() or ("cpu",))])
def open_match(request: pytest.FixtureRequest) -> Callable[[Bundle], MatchBackend]:
    """Open a bundle on a backend: ONNX Runtime, or our library with each instruction set."""
    if request.param == "onnxruntime-cpu":
        return lambda bundle: OnnxRuntimeMatch(bundle, 2)
    if request.param == "onnxruntime-cuda":  # its very code, on the CPU
        return lambda bundle: OnnxRuntimeMatchCuda(bundle, Device("cpu"), threads=2)
    if cpu_problem():
        pytest.skip(f"no native CPU library: {cpu_problem()}")
    return lambda bundle: CpuMatch(bundle, 2, request.param)


def test_golden_values(shared: Path, golden_bundle: Path, open_match: Callable[[Bundle], MatchBackend]) -> None:
    """Tolerances of the fixture's README."""
    golden, backend = GoldenLangCell(shared), open_match(open_bundle(golden_bundle))
    expected = golden.expected
    cells = list(backend.encode_cells(golden.cells(), keeps_states=True))
    for one, hidden in zip(cells, expected["cell_last_hidden_state"], strict=True):
        assert one.states is not None
        np.testing.assert_allclose(one.states, hidden[: len(one.states)], atol=1e-4, rtol=0)
    np.testing.assert_allclose([one.vector for one in cells], expected["cell_pooler"], atol=2e-5, rtol=0)
    tokens = [np.array(one.ids) for one in backend.bundle.tokenizer.encode_batch(golden.texts)]
    for mine, theirs in zip(tokens, golden.text_tokens(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    texts = backend.encode_texts(tokens)
    np.testing.assert_allclose(texts.vectors, expected["text_embs"], atol=2e-5, rtol=0)
    match = np.stack([backend.match(one, texts, np.arange(7)) for one in cells])
    np.testing.assert_allclose(match, expected["ctm_prob"], atol=1e-4, rtol=0)
    for i, one in enumerate(cells):
        for rerank in ("all", "sure"):
            found = label_scores(
                one.vector, texts.vectors, lambda chosen, i=i: match[i][chosen], ZeroShot(rerank=rerank)
            )
            assert found.best == expected["final_argmax"][i]
            if found.every is not None:
                np.testing.assert_allclose(found.every, expected["final_scores"][i], atol=1e-5, rtol=0)


def test_what_a_cell_gets_does_not_depend_on_others(
    tiny_langcell: Path, open_match: Callable[[Bundle], MatchBackend]
) -> None:
    backend = open_match(open_bundle(tiny_langcell))
    random = np.random.default_rng(0)
    cells = [np.concatenate(([25426], random.choice(np.arange(2, 25426), n, replace=False))) for n in (3, 40, 700)]
    texts = backend.encode_texts([np.array([2, *random.integers(5, 150, n), 3]) for n in (1, 9, 9, 30)])
    together = list(backend.encode_cells(cells, keeps_states=True))
    every = np.arange(4)
    for tokens, one in zip(cells, together, strict=True):
        alone = next(iter(backend.encode_cells([tokens], keeps_states=True)))
        assert alone.vector.tobytes() == one.vector.tobytes()
        match = backend.match(one, texts, every)
        for order in (every[::-1], every[2:3], np.array([1, 3])):
            np.testing.assert_allclose(backend.match(one, texts, order), match[order], atol=1e-6, rtol=0)
    assert backend.match(together[0], texts, every[:0]).shape == (0,)


@pytest.mark.parametrize("precision", ["fp32", "fp16-stored", "int8"])
def test_our_library_computes_what_onnx_runtime_does(
    tiny_langcell: Path, tmp_path_factory: pytest.TempPathFactory, precision: str
) -> None:
    if cpu_problem():
        pytest.skip(f"no native CPU library: {cpu_problem()}")
    folder = tiny_langcell
    if precision != "fp32":
        from cellscribe.export.quantize.bundle import quantize_bundle

        name = f"tiny-langcell-{precision}"
        folder = made_once(tmp_path_factory, name, lambda at: quantize_bundle(tiny_langcell, at, precision))
    bundle, random = open_bundle(folder), np.random.default_rng(1)
    cells = [np.concatenate(([25426], random.choice(np.arange(2, 25426), n, replace=False))) for n in (1, 90, 1500)]
    tokens = [np.array([2, *random.integers(5, 150, n), 3]) for n in (*range(1, 40), 500)]
    answers = []
    for backend in (OnnxRuntimeMatch(bundle, 2), CpuMatch(bundle, 2), CpuMatch(open_bundle(tiny_langcell), 2)):
        states = list(backend.encode_cells(cells, keeps_states=True))
        texts = backend.encode_texts(tokens)
        match = np.stack([backend.match(one, texts, np.arange(40)) for one in states])
        bare = np.stack([one.vector for one in backend.encode_cells(cells)])
        np.testing.assert_allclose(bare, [one.vector for one in states], atol=1e-6, rtol=0)
        answers.append((bare, texts.vectors, match))
    for theirs, mine, exact in zip(*answers[:2], answers[-1], strict=True):
        if precision == "int8":  # both round, and not alike: neither may be much farther from float32 than the other
            assert np.abs(mine - exact).mean() < 1.5 * np.abs(theirs - exact).mean() + 1e-4
            assert np.abs(mine - exact).max() < 2.5 * np.abs(theirs - exact).max() + 1e-3
        else:
            np.testing.assert_allclose(mine, theirs, atol=1e-4, rtol=0)


def test_labels_of_real_cells(tiny_langcell: Path) -> None:
    cells = read_h5ad(packaged_cells())[:12].copy()
    cells.X[3] = 0
    if cells.raw is not None:
        del cells.raw
    model = cs.load(tiny_langcell)
    assert isinstance(model, cs.MatchModel)
    frame = model.annotate(cells, LABELS)
    assert [*frame.columns[:6]] == ["label", "score", "runner_up", "margin", "cell_ontology_term_id", "status"]
    assert frame.status.iloc[3].startswith("failed: it has no counts")
    good = frame.drop(index=frame.index[3])
    scores = good[[f"score of {name}" for name in LABELS]].to_numpy()
    np.testing.assert_allclose(scores.sum(1), 1.0, rtol=1e-5)
    assert (np.array([*LABELS])[scores.argmax(1)] == good.label).all()
    np.testing.assert_allclose(good.margin, -np.diff(-np.sort(-scores, 1)[:, :2]).ravel(), atol=1e-6)
    assert set(good.cell_ontology_term_id) <= {"CL:0000236", "CL:0000576", ""}
    assert cells.obsm["cellscribe_label_scores"].shape == (12, 3)
    assert np.isnan(cells.obsm["X_cellscribe"][3]).all()
    assert cells.uns["cellscribe"]["alpha"] == 0.1
    sure = model.annotate(cells, LABELS, rerank="sure", copy=True)
    assert (sure.label == frame.label).all()


def test_cells_of_a_low_score_are_unknown(tiny_langcell: Path) -> None:
    model, cells = cs.load(tiny_langcell), read_h5ad(packaged_cells())[:6].copy()
    frame = model.annotate(cells, [*LABELS])
    limit = float(frame.score.sort_values().iloc[2:4].mean())
    found = model.annotate(cells, [*LABELS], threshold=limit)
    assert ((found.label == "unknown") == (frame.score < limit)).all()
    assert (found.label == "unknown").sum() == 3
    np.testing.assert_array_equal(found.score, frame.score)


def test_definitions_change_texts() -> None:
    labels = Labels(("B cell", "T cell"), ("", ""), ("It makes antibodies.", "It kills."))
    assert label_texts(labels)[0] == "cell type: B cell. It makes antibodies.; "
    assert label_texts(Labels(labels.names, labels.term_ids))[0] == "cell type: B cell; "
    assert label_texts(labels, "a {name}")[1] == "a T cell"
    with pytest.raises(UsageError, match=r"has no \{name\}"):
        label_texts(labels, "a cell")
    with pytest.raises(UsageError, match="cannot be filled"):
        label_texts(labels, "{name} of {tissue}")


def test_vectors_have_length_one(tiny_langcell: Path) -> None:
    cells = read_h5ad(packaged_cells())[:9].copy()
    vectors = cs.load(tiny_langcell).embed(cells)
    assert vectors.shape == (9, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(cells.obsm["X_cellscribe"], vectors)
    shuffled = cs.load(tiny_langcell).embed(cells[::-1].copy())
    assert shuffled[::-1].tobytes() == vectors.tobytes()


def test_a_bundle_passes_its_own_check(tiny_langcell: Path, tmp_path: Path) -> None:
    report = verify_match_bundle(open_bundle(tiny_langcell), "onnxruntime-cpu", 2)
    assert report.passed, report.failures
    assert report.parity.texts == 4
    assert "probabilities of matching by" in report.lines()[2]
    assert report.as_dict()["passed"]


@pytest.mark.parametrize("part", ["encode_cells", "match"])
def test_a_device_that_fails_in_mid_run_loses_no_finished_cell(
    tiny_langcell: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    cells = read_h5ad(packaged_cells())[:8].copy()
    cells.raw = None
    cells.X[1] = 0
    whole = cs.load(tiny_langcell, backend="onnxruntime-cpu").annotate(cells, [*LABELS], copy=True)
    model, done = cs.load(tiny_langcell, backend="onnxruntime-cpu"), 0
    backend = model.ranks.backend_choice.backend
    encode, match = backend.encode_cells, backend.match

    def failing_match(*given: object) -> np.ndarray:
        nonlocal done
        done += 1
        if done == 4:
            raise BackendError("the device is gone.")
        return match(*given)

    def failing_encode(*given: object, **named: object) -> Iterator[object]:
        for i, state in enumerate(encode(*given, **named)):
            if i == 3:
                raise BackendError("the device is gone.")
            yield state

    monkeypatch.setattr(backend, part, failing_match if part == "match" else failing_encode)
    found = model.annotate(cells, [*LABELS], copy=True)
    assert [one.startswith("failed") for one in found.status] == [False, True, False, False, *[True] * 4]
    assert found.status.iloc[1] == "failed: it has no counts"
    assert set(found.status.iloc[4:]) == {"failed: the device is gone"}
    assert found.label.iloc[[0, 2, 3]].tolist() == whole.label.iloc[[0, 2, 3]].tolist()
    assert set(found.label.iloc[4:]) == {""}


def test_wrong_wishes_are_one_sentence(tiny_langcell: Path) -> None:
    model, cells = cs.load(tiny_langcell), read_h5ad(packaged_cells())[:2].copy()
    with pytest.raises(UsageError, match="'B cell' is there twice"):
        model.annotate(cells, ["B cell", "B cell"])
    with pytest.raises(UsageError, match="there are no labels"):
        model.annotate(cells, [])
    with pytest.raises(UsageError, match="the label 'B cell' has none; give it one"):
        model.annotate(cells, ["B cell"], definitions=True)
    with pytest.raises(UsageError, match="has 600 tokens and the model takes 512"):
        model.annotate(cells, ["." * 588])
    with pytest.raises(UsageError, match="the threshold is 2"):
        model.annotate(cells, ["B cell"], threshold=2.0)
    with pytest.raises(UsageError, match="leave gene lists and what belongs to sentences out"):
        cs.load(tiny_langcell, hvg=["CD19"])
    with pytest.raises(BackendError, match="its kernels are those of LingoCell, and the bundle reads ranks"):
        cs.load(tiny_langcell, backend="cuda")
    for name in ("describe", "stream", "ask", "generate"):
        with pytest.raises(BundleError, match=f"does not {name}; use annotate or embed"):
            getattr(model, name)(cells)
    strange = cells.copy()
    strange.var_names = [f"nothing{i}" for i in range(cells.n_vars)]
    with pytest.raises(InputError, match="Only 0% of the genes"):
        model.embed(strange)
