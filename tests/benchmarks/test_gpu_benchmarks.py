"""The GPU benchmarks: their arithmetic against the design's figures, and every part of their run in emulation."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import projections  # noqa: E402
from gpu import roofline as r  # noqa: E402
from gpu.clock import Clock  # noqa: E402
from gpu.parts import PARTS  # noqa: E402
from gpu.results import Section, Store  # noqa: E402
from gpu.run import GROUPS, Run  # noqa: E402
from gpu.sizes import FULL, TINY  # noqa: E402
from results_folder import PUBLISHED  # noqa: E402

H200 = r.Ceilings("H200", 4300e9, 790e12, 60 << 20)
M = r.LINGOCELL


def test_the_sizes_are_those_of_the_exported_shape() -> None:
    pytest.importorskip("torch")
    from cellscribe.export.random_model import SHAPES

    for sizes in (FULL, TINY):
        shape, m = SHAPES[sizes.shape], sizes.model
        d, c = shape.decoder, shape.cross
        assert (m.genes, m.d_memory, sizes.encoder_heads) == (
            shape.num_genes + 1,
            shape.d_encoder,
            shape.n_encoder_heads,
        )
        assert (m.encoder_layers, m.encoder_ffn) == (shape.n_encoder_layers, shape.d_encoder_ffn)
        decoder = (d.vocab_size, d.d_model, d.n_layers, d.n_heads, d.n_kv_heads, d.d_ffn)
        assert (m.vocab, m.d_model, m.n_layers, m.n_heads, m.n_kv_heads, m.d_ffn) == decoder
        assert (m.n_cross, m.cross_heads, m.cross_kv_heads) == (c.n_layers, c.n_heads, c.n_kv_heads)


def test_bytes_are_those_worked_out_by_hand() -> None:
    # 22 x (2048 x 2560 + 2048 x 2048 + 3 x 2048 x 5632) + 12 x 2 x 2048 x 2048 + 2048 x 32000, 2 bytes each
    products = 22 * (5_242_880 + 4_194_304 + 34_603_008) + 12 * 8_388_608 + 65_536_000
    assert 2 * products == pytest.approx(2.27e9, rel=1e-3)
    assert r.step_weight_bytes(M) - 2 * products == 12 * 2 * 2 * 2048 * 512
    assert r.memory_bytes(M) == 1201 * 512 * 2
    assert r.memory_bytes(M) == pytest.approx(1.23e6, rel=1e-3)
    assert 96 * r.attended_bytes(M) == pytest.approx(1.4e9, rel=0.02)
    assert 96 * r.cache_bytes(M, 138) == pytest.approx(0.3e9, rel=0.02)
    materialised = r.Model(**{**M.__dict__, "is_latent": False})
    assert r.attended_bytes(materialised) == pytest.approx(118e6, rel=2e-3)
    eight = M.with_weights(1)
    assert r.step_weight_bytes(eight) == products + 12 * 2 * 2 * 2048 * 512


def test_operations_are_those_worked_out_by_hand() -> None:
    assert r.encoder_work(M, 1).flops == pytest.approx(81e9, rel=0.01)
    assert r.prompt_work(M, 1).flops == pytest.approx(195e9, rel=0.06)  # "about 120 plus about 75"
    step = r.step_work(M, 1, 138).flops
    latent = 12 * 4 * 32 * 1201 * 512
    assert 96 * latent == pytest.approx(91e9, rel=0.01)
    assert 96 * (step - latent) == pytest.approx(220e9, rel=0.03)
    assert r.cell_flops(M, 96) == pytest.approx(590e9, rel=0.03)
    assert r.step_work(M, 7, 138).flops == pytest.approx(7 * step)


def test_floors_are_those_of_the_design() -> None:
    assert r.cell_floor(M, 1, 96, H200).steps_ms == pytest.approx(95 * 2.338e9 / 4300e6, rel=1e-3)
    assert r.cell_floor(M, 96, 96, H200).ms == pytest.approx(1.3, rel=0.05)
    assert r.cell_floor(M, 512, 96, H200).ms == pytest.approx(0.75, rel=0.15)
    assert r.Ceilings("one", 10.0, 100.0).seconds(r.Work(20.0, 100.0)) == 2.0
    assert r.Ceilings("one", 10.0, 100.0).binds(r.Work(1.0, 100.0)) == "arithmetic"
    cached = r.step_work_in_cache(M, 32, 138)
    assert r.step_work(M, 32, 138).bytes - cached.bytes == 32 * 11 * r.memory_bytes(M)


def test_projections_say_what_they_are_and_are_up_to_date() -> None:
    found = projections.result()
    assert {row["label"] for row in [*found["rows"], *found["under_180_ms_on_a_4090"]]} == {projections.LABEL}
    kept = json.loads((PUBLISHED / "projections.json").read_text())
    assert kept == json.loads(json.dumps(found))
    assert (PUBLISHED / "projections.md").read_text() == projections.markdown(found)
    fp16, int8 = projections.routes(projections.DEVICES[0], 1.0)
    assert not fp16["under_180_ms"]
    assert int8["under_180_ms"]


def test_every_part_is_run_once() -> None:
    grouped = [part for group in GROUPS for part in group.parts]
    assert sorted([*grouped, "bundle"]) == sorted(PARTS)


def test_rows_are_there_before_a_part_ends(tmp_path: Path) -> None:
    store = Store.of(tmp_path, tmp_path / "out/gpu_x.json")
    store.begin({"name": "x"})
    Section(store, "slots").row(slots=1, ms_per_cell=2.0)
    found = json.loads(store.target.read_text())
    assert found["parts"]["slots"]["status"] == "running"
    assert found["parts"]["slots"]["rows"] == [{"slots": 1, "ms_per_cell": 2.0}]
    store.begin({"name": "y"})
    assert json.loads(store.target.read_text())["parts"] == {}


def test_the_clock_counts_one_call_of_many() -> None:
    clock = Clock(None, False)
    assert clock.each([lambda: time.sleep(0.01)] * 3, 2) == pytest.approx(0.01, rel=0.5)


def test_a_part_that_runs_late_is_ended_and_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = argparse.Namespace(work=tmp_path, minutes=1.0, results=tmp_path, name="x", parts="", emulate=True)
    one = Run(asked)
    one.store.begin({})
    Section(one.store, "slots").row(slots=1)
    sleeping = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(one, "_command", lambda parts: sleeping)
    one._end(("slots",), one._start(("slots",)), 0.5)
    found = one.store.read("slots")
    assert found["status"] == "cut off"
    assert "0 s" in found["why"] or "1 s" in found["why"]
    assert found["rows"] == [{"slots": 1}]
    assert not one.running


def run(*arguments: str | Path, **options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, **options}
    command = ["bash", str(ROOT / "benchmarks/gpu.sh"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=600)


EMULATED = (
    "machine", "build", "kernels", "slots", "encoder", "parity", "torch", "materialised", "int8", "profile",
    "onnxruntime-cuda", "transformers", "sweeps", "tensorrt-rtx",
)  # fmt: skip  # compiling with torch and collecting the tests take longer than all of these


@pytest.fixture(scope="module")
def emulated(
    tiny_bundle_fp16: Path, emulated_kernels: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, object], str]:
    """One run of gpu.sh at tiny sizes, its kernels emulated."""
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("gpu")
    done = run(
        "--emulate", "--results", folder / "results", "--work", folder / "work", "--library", emulated_kernels,
        "--bundle", tiny_bundle_fp16, "--parts", ",".join(EMULATED), "--name", "test",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    page = (folder / "results/gpu_test.md").read_text()
    return json.loads((folder / "results/gpu_test.json").read_text()), page


@pytest.mark.slow
def test_an_emulated_run_goes_through_every_part(emulated: tuple[dict[str, dict], str]) -> None:
    found, page = emulated
    assert found["is_emulated"]
    assert "EMULATED" in found["kind"]
    assert "No figure here says anything about a GPU" in page
    parts = found["parts"]
    assert set(parts) == {*EMULATED, "bundle"}
    for name, part in parts.items():
        assert part["status"] in ("ok", "skipped"), name
        assert f"## {name}: " in page
    rows = {name: part["rows"] for name, part in parts.items()}
    for row in rows["kernels"]:
        assert row["us_cold"] > 0
        floor = parts["kernels"]["ceilings"]["bandwidth"], parts["kernels"]["ceilings"]["flops"]
        slower = max(row["bytes"] / floor[0], row["flops"] / floor[1])
        assert row["floor_us"] == pytest.approx(1e6 * slower, rel=0.02, abs=1e-3)
    assert {row["kernel"] for row in rows["kernels"]} >= {
        "latent_cross",
        "grouped_attention",
        "skinny_linear",
        "sample",
    }


@pytest.mark.slow
def test_figures_come_from_the_run(emulated: tuple[dict[str, dict], str]) -> None:
    parts = emulated[0]["parts"]
    assert parts["slots"]["ceilings"]["name"] == "measured in this run"
    fastest = max(parts["machine"]["copy_gbs"], parts["machine"]["read_gbs"])
    assert parts["slots"]["ceilings"]["bandwidth"] == pytest.approx(fastest * 1e9)
    for name in ("slots", "materialised", "int8"):
        for row in parts[name]["rows"]:
            assert row["ms_per_cell"] * row["tokens_per_s"] == pytest.approx(1e3 * row["tokens"], rel=0.01)
            assert row["step_ms"] > 0
            assert row["latency_p50_ms"] <= row["latency_p99_ms"]
    assert [row["slots"] for row in parts["slots"]["rows"]] == list(TINY.slots)
    few, many = parts["parity"]["rows"][1], parts["parity"]["rows"][0]
    assert many["tokens"] == TINY.parity_cells[0] * TINY.tokens
    assert many["percent_equal"] > 95
    assert few["others"] == many["others"] == 0
    assert parts["parity"]["reference_against_the_cpu"]["logits_max_difference"] < 1e-3
    assert parts["torch"]["check"]["percent_equal"] > 95
    assert parts["transformers"]["check"]["logits_max_error"] < 0.5


@pytest.mark.slow
def test_what_fails_or_runs_late_is_recorded_and_the_rest_goes_on(tmp_path: Path) -> None:
    work, results = tmp_path / "work", tmp_path / "results"
    done = run("--emulate", "--results", results, "--work", work, "--library", tmp_path / "missing.so",
               "--bundle", tmp_path, "--parts", "kernels,machine", "--minutes", "0.6")  # fmt: skip
    assert done.returncode == 1
    parts = json.loads((results / "gpu_emulated.json").read_text())["parts"]
    assert parts["machine"]["status"] == "ok"
    assert parts["kernels"]["status"] == "failed"
    assert "missing.so" in parts["kernels"]["why"]
    done = run("--emulate", "--results", results, "--work", work, "--parts", "machine", "--minutes", "0.15")
    part = json.loads((results / "gpu_emulated.json").read_text())["parts"]["machine"]
    assert part["status"] == "skipped"
    assert "no time" in part["why"]


def test_an_emulated_run_never_writes_into_the_results(tmp_path: Path) -> None:
    done = run("--emulate", "--work", tmp_path)
    assert done.returncode == 2
    assert "measures nothing" in done.stderr
    assert not (ROOT / "benchmarks/results/gpu_emulated.json").exists()
    assert "gpu_NAME.json" in run("--help").stdout
