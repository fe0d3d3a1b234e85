from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cellscribe.engine.bench.plot import write_plot
from cellscribe.engine.bench.precision import NO_PRECISION
from cellscribe.engine.bench.report import markdown, roofline_line, table, write_markdown
from cellscribe.engine.bench.results import MARKDOWN_NAME, Results
from cellscribe.engine.bench.roofline import Roofline
from cellscribe.engine.bench.row import Row
from cellscribe.engine.bench.table import duration, figure, latencies
from cellscribe.engine.errors import BackendError, InputError

MakeRow = Callable[..., Row]


def results(folder: Path, rows: list[Row]) -> Results:
    head = {"command": "cellscribe bench demo", "bundle": {"name": "demo"}, "machine": "a CPU", "versions": {"a": "1"}}
    return Results(folder, head, Roofline(2, {"read": [20e9, 25e9], "fp32": [1e11, 1e11]}), rows)


def test_the_page_holds_every_row_and_what_it_rests_on(tmp_path: Path, make_row: MakeRow) -> None:
    rows = [
        make_row(who=who, question=question, fits_in_cache=who == "theirs", notes=("as they are",))
        for question in ("slots", "peers")
        for who in ("ours", "theirs")
    ]
    found = results(tmp_path, rows)
    found.skipped["slots 64"] = "no room."
    write_markdown(found)
    text = (tmp_path / MARKDOWN_NAME).read_text()
    assert text == markdown(found)
    assert "## How long does a step take with more slots?" in text
    assert "## peers" in text
    assert text.count("a decode step: as they are") == 2  # once a table
    assert "last cache" in text
    assert "- left out, slots 64: no room." in text
    assert "other work ran" not in text
    found.roofline.add({"busy": 0.4})
    assert "other work ran" in markdown(found)
    assert "| 32 % " in text  # 2 GB in 0.25 s under 25 GB/s
    assert "32 %†" in text


def test_the_table_is_aligned_and_leaves_out_empty_columns(make_row: MakeRow) -> None:
    lines = table([make_row(), make_row(who="a long name | with a bar")])
    assert len({len(line) for line in lines}) == 1
    assert {line.count("|") for line in lines} == {lines[0].count("|")}
    assert "roofline" not in lines[0]
    assert "8 slots" in lines[2]
    assert "250 ms" in lines[2]


def test_rows_above_the_roofline_are_marked(tmp_path: Path, make_row: MakeRow) -> None:
    fast = make_row(rounds=((0.07, 0.07),))  # 2 GB under 25 GB/s take 80 ms
    text = markdown(results(tmp_path, [make_row(), fast]))
    assert "| 114 %‡ " in text
    assert "| 32 % " in text
    assert text.count("\n- ‡ more than the roofline: its ceiling was measured while the machine was slower") == 1
    assert "‡" not in markdown(results(tmp_path, [make_row(rounds=((0.077, 0.077),))]))  # 104 %


def test_percentiles_of_few_samples_say_so(make_row: MakeRow) -> None:
    assert latencies(make_row(latency_ms=tuple(range(1, 9)))).endswith(" ms of 8 samples")
    assert latencies(make_row(latency_ms=(1.0,) * 100)) == "1.00 / 1.00 / 1.00 ms"
    assert latencies(make_row()) == ""


def test_rows_without_a_precision_are_not_judged(tmp_path: Path, make_row: MakeRow) -> None:
    row = results(tmp_path, [make_row(precision=NO_PRECISION)]).judged()[0]
    assert row.ceilings is None
    assert table([row])[2].startswith("| ours   | -  ")


def test_ceilings_in_a_line() -> None:
    line = roofline_line(Roofline(1, {"read": [20e9, 25e9], "fp32": [1e11, 1e11]}))
    assert "reading 20.0 / 22.5 / 25.0 GB/s" in line
    assert "fp32 product 100 / 100 / 100 GFLOP/s" in line
    assert "1 thread)" in line
    assert line.endswith("drifting: read")


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.5, "1.50 s"), (0.25, "250 ms"), (0.0123, "12.3 ms"), (4.5e-5, "45.0 µs")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_figures() -> None:
    assert [figure(one) for one in (None, float("nan"), 1234.5, 12.34, 0.001)] == ["", "", "1,234", "12.3", "0.001"]


def test_the_plot_is_a_png(tmp_path: Path, make_row: MakeRow) -> None:
    pytest.importorskip("matplotlib")
    found = results(tmp_path, [
        make_row(who=who, sizes={"slots": slots}, units=slots, rounds=((0.1 * slots, 0.2 * slots),))
        for who in ("ours", "theirs") for slots in (8, 1)
    ])  # fmt: skip
    path = tmp_path / "bench.png"
    write_plot(found.judged(), path, "demo")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert str(tmp_path).encode() not in path.read_bytes()


def test_there_must_be_steps_to_draw(tmp_path: Path, make_row: MakeRow) -> None:
    for rows in ([], [make_row(question="cells")], [make_row(rounds=())]):
        with pytest.raises(InputError, match="no step times"):
            write_plot(rows, tmp_path / "bench.png")


def test_without_matplotlib_it_says_how_to_get_it(
    tmp_path: Path, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BackendError, match=r"cellscribe\[bench\]"):
        write_plot([make_row()], tmp_path / "bench.png")
    assert not list(tmp_path.iterdir())
