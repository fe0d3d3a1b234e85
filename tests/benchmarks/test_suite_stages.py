"""The suite with stages that measure nothing: what runs, what goes on, what is said of those that fail."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import suite as module
from results_folder import PUBLISHED, VARIABLE, results_folder
from stages import BENCHES, Stage, stages
from suite import RECORD, StageError, Suite

WRITE = f"import os; open(os.path.join(os.environ[{VARIABLE!r}], 'ran.txt'), 'a').write('x')"


def stage(code: str, *, makes: tuple[str, ...] = ("ran.txt",), inputs: tuple[Path, ...] = ()) -> Stage:
    return Stage(((sys.executable, "-c", code),), makes, inputs)


def test_stages_write_into_the_folder_and_are_not_run_twice(tmp_path: Path) -> None:
    Suite(tmp_path).run({"one": stage(WRITE)})
    Suite(tmp_path).run({"one": stage(WRITE)})
    assert (tmp_path / "ran.txt").read_text() == "x"
    assert list(json.loads((tmp_path / RECORD).read_text())["finished"]) == ["one"]
    Suite(tmp_path).run({"one": stage(WRITE)}, again=True)
    assert (tmp_path / "ran.txt").read_text() == "x"  # the old one is gone


def test_one_that_fails_is_said_at_the_end_and_the_others_run(tmp_path: Path) -> None:
    suite = Suite(tmp_path)
    suite.run(
        {
            "broken": stage("import sys; print('noise', file=sys.stderr); sys.exit('the cells are gone.')"),
            "silent": stage("raise SystemExit(3)"),
            "absent": stage(WRITE, inputs=(tmp_path / "no.h5ad",)),
            "one": stage(WRITE),
        }
    )
    assert (tmp_path / "ran.txt").read_text() == "x"
    assert suite.report() == [
        f"absent was left out: there is no {tmp_path / 'no.h5ad'}; CELLSCRIBE_SHARED names the folder of data/.",
        "broken failed: the cells are gone.",
        "silent failed: -c ended with code 3 and said nothing.",
    ]
    again = Suite(tmp_path)
    again.run({"broken": stage(WRITE), "one": stage("raise SystemExit(1)")})  # only what failed is tried again
    assert not again.failed
    assert (tmp_path / "ran.txt").read_text() == "xx"


def test_a_bench_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "import sys; sys.exit(' '.join(sys.argv[1:]))", "bench")
    suite = Suite(tmp_path)
    suite.run({"curves": Stage((command,), ("bench_x",))})
    assert suite.failed["curves"] == "bench"
    (tmp_path / "bench_x").mkdir()
    (tmp_path / "bench_x" / "bench.json").write_text("{}")
    suite.run({"curves": Stage((command,), ("bench_x",))})
    assert suite.failed["curves"] == "bench --resume"
    suite.run({"curves": Stage((command,), ("bench_x",))}, again=True)
    assert suite.failed["curves"] == "bench"
    assert not list((tmp_path / "bench_x").iterdir())


def test_what_a_stage_lacks_is_made_first(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    make = (sys.executable, "-c", f"import os; os.mkdir({str(bundle)!r})")
    needs = Stage(((sys.executable, "-c", f"import os; os.rmdir({str(bundle)!r})"),), (), prepares=((bundle, make),))
    suite = Suite(tmp_path)
    suite.run({"one": needs})
    bundle.mkdir()
    suite.run({"two": needs})
    assert not suite.failed


def test_results_of_another_machine_are_not_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text(json.dumps({"hardware": {"processor": "another"}, "finished": {}}))
    with pytest.raises(StageError, match="another machine; name another folder with --out"):
        Suite(tmp_path).run({"one": stage(WRITE)})


def test_the_exit_code_tells_of_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"good": stage(WRITE), "bad": stage("raise SystemExit('no luck.')")}
    monkeypatch.setattr(module, "stages", lambda results, bundles: found)
    where = ("--out", str(tmp_path / "out"), "--bundles", str(tmp_path / "bundles"))
    assert module.main(["--only", "good", "--out", *where[1:]]) == 0
    assert module.main(where) == 1
    assert capsys.readouterr().out.endswith("bad failed: no luck.\n")
    with pytest.raises(SystemExit):
        module.main(["--only", "none", *where])
    assert "no stage is called none; choose from good, bad." in capsys.readouterr().err


@pytest.mark.parametrize("folder", sorted(path.name for path in PUBLISHED.glob("bench_*")))
def test_published_benches_have_a_stage_with_their_settings(folder: str) -> None:
    command = json.loads((PUBLISHED / folder / "bench.json").read_text())["command"].split()
    _, options = BENCHES[folder.removeprefix("bench_")]
    assert tuple(command[3:]) == options


def test_every_script_of_a_stage_exists_and_writes_outside_the_published_results(tmp_path: Path) -> None:
    found = stages(tmp_path / "out", tmp_path / "bundles")
    made = {name for one in found.values() for name in one.makes}
    published = {path.name for path in PUBLISHED.iterdir()}
    assert {name for name in published if name.startswith(("bench_", "seed_way", "plain_llama", "encoder"))} <= made
    for one in found.values():
        for command in one.commands:
            assert command[1] == "-m" or (PUBLISHED.parent / command[1]).is_file()
            assert str(PUBLISHED) not in " ".join(command)


def test_the_folder_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert results_folder() == PUBLISHED
    monkeypatch.setenv(VARIABLE, str(tmp_path / "new" / "folder"))
    assert results_folder() == tmp_path / "new" / "folder"
    assert results_folder().is_dir()
