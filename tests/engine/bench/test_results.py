from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cellscribe.engine.bench.results import JSON_NAME, Results, read_results, results_folder
from cellscribe.engine.bench.roofline import Roofline
from cellscribe.engine.bench.row import Row
from cellscribe.engine.bench.settings import Settings
from cellscribe.engine.errors import CellscribeError, InputError, OutputError, UsageError

MakeRow = Callable[..., Row]
HEAD = {
    "command": "cellscribe bench demo",
    "bundle": {"name": "demo", "hash": "ab"},
    "settings": Settings().as_dict(),
    "machine": "a CPU, 2 cores",
    "hardware": {"processor": "a CPU", "cores": 2},
    "contenders": [{"who": "ours"}],
    "versions": {"python": "3.11"},
    "cells": "cells.h5ad",
}


def results(folder: Path, **changes: object) -> Results:
    return Results(folder, {**HEAD, **changes}, Roofline(2, {"read": [20e9], "fp32": [60e9]}))


def test_rows_are_on_the_disk_as_soon_as_they_are_added(tmp_path: Path, make_row: MakeRow) -> None:
    found = results(tmp_path)
    found.add("slots 1", (make_row(),))
    told = json.loads((tmp_path / JSON_NAME).read_text())
    assert [row["who"] for row in told["rows"]] == ["ours"]
    assert told["finished"] == ["slots 1"]
    assert told["roofline"]["rates"]["read"] == [20e9]
    assert told["settings"]["slots"] == [1, 2, 4, 8, 16, 32, 64]
    assert str(tmp_path) not in (tmp_path / JSON_NAME).read_text()
    assert list(tmp_path.iterdir()) == [tmp_path / JSON_NAME]


def test_all_rows_are_judged_by_the_whole_run(tmp_path: Path, make_row: MakeRow) -> None:
    found = results(tmp_path)
    found.add("slots 1", (make_row(), make_row(who="a GPU", threads=0)))
    found.roofline.add({"read": 40e9})
    ours, other = found.judged()
    assert ours.percent_of_bandwidth == pytest.approx(20)  # 2 GB in 0.25 s under 40 GB/s
    assert other.percent_of_roofline is None


def test_a_run_is_resumed(tmp_path: Path, make_row: MakeRow) -> None:
    first = results(tmp_path)
    first.add("slots 1", (make_row(),))
    first.skip("slots 64", "no room.")
    second = results(tmp_path)
    second.resume()
    assert second.finished == ["slots 1"]
    assert second.rows == list(first.judged())
    assert second.skipped == {}  # they get another chance
    assert second.roofline.rates["read"] == [20e9, 20e9]
    assert second.date == first.date


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bundle": {"name": "demo", "hash": "cd"}}, "other bundle"),
        ({"settings": Settings.quick().as_dict()}, "other settings"),
        ({"hardware": {"processor": "a CPU", "cores": 4}}, "other machine"),
        ({"contenders": []}, "other engines"),
        ({"versions": {}}, "other versions"),
    ],
)
def test_what_differs_is_not_mixed(tmp_path: Path, make_row: MakeRow, changes: dict[str, object], words: str) -> None:
    results(tmp_path).add("slots 1", (make_row(),))
    with pytest.raises(UsageError, match=words):
        results(tmp_path, **changes).resume()


def test_the_command_may_differ(tmp_path: Path, make_row: MakeRow) -> None:
    results(tmp_path).add("slots 1", (make_row(),))
    results(tmp_path, command="cellscribe bench demo --questions memory").resume()


def test_there_must_be_something_to_resume(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no bench\.json"):
        results(tmp_path).resume()


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": []}', "\xff\xfe"])
def test_damaged_results_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / JSON_NAME).write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match="damaged"):
        read_results(tmp_path)


def test_a_damaged_row_names_its_file(tmp_path: Path, make_row: MakeRow) -> None:
    results(tmp_path).add("slots 1", (make_row(),))
    told = json.loads((tmp_path / JSON_NAME).read_text())
    del told["rows"][0]["rounds"]
    (tmp_path / JSON_NAME).write_text(json.dumps(told))
    with pytest.raises(InputError, match=r"a row of .*bench\.json is damaged \(it has no 'rounds'\)"):
        results(tmp_path).resume()


def test_results_of_another_release_are_refused(tmp_path: Path) -> None:
    results(tmp_path).write()
    told = json.loads((tmp_path / JSON_NAME).read_text())
    (tmp_path / JSON_NAME).write_text(json.dumps({**told, "schema": 99}))
    with pytest.raises(InputError, match="another release"):
        read_results(tmp_path)


def test_the_folder_is_made_if_only_it_is_missing(tmp_path: Path) -> None:
    made = results_folder(tmp_path / "new")
    assert made.is_dir()
    (made / "bench.json").write_text("{}")
    assert results_folder(made, resumes=True) == made
    with pytest.raises(OutputError, match="holds results already; go on with them"):
        results_folder(made)
    with pytest.raises(OutputError, match="does not exist"):
        results_folder(tmp_path / "no" / "such")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="is a file"):
        results_folder(tmp_path / "file")


@pytest.mark.parametrize(
    "changes", [{"slots": ()}, {"slots": (0,)}, {"new_tokens": (8,)}, {"num_slots": 0}, {"text_len": 1000}]
)
def test_settings_that_cannot_be(changes: dict[str, object]) -> None:
    with pytest.raises(CellscribeError, match=r"give|choose"):
        replace(Settings(), **changes)  # type: ignore[arg-type]
