"""Putting a built plan in its place: beside other builders, on a full disk; and what makes it this user's own."""

from __future__ import annotations

import errno
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cellscribe.engine.backends.tensorrt.homes import is_trusted
from cellscribe.engine.backends.tensorrt.log import Heard
from cellscribe.engine.backends.tensorrt.plan import Recipe, read_plan
from cellscribe.engine.errors import OutputError, PlanError
from cellscribe.export.tensorrt import folder as folders
from cellscribe.export.tensorrt import network, rtx, timing

RECIPE = Recipe("rtx", "1.7.1", 13, "rtx4090", 89, "fp16", 4, 4, 8, 10, 96, 112, 61, "graphs")


def sealed(home: Path, content: str) -> Any:
    """Build and seal a plan in a staging folder of its own, which is not removed."""
    home.mkdir(exist_ok=True)
    folder = home / f".{content}"
    folder.mkdir()
    (folder / "decoder.plan").write_text(content)
    assert folders.seal(folder, RECIPE, {})
    return folder


def test_a_plan_is_put_in_the_place_of_an_older_one_and_is_the_users_own(tmp_path: Path) -> None:
    for content in ("old", "new"):
        plan = folders.place(sealed(tmp_path, content), tmp_path, RECIPE, is_given=False)
    assert (plan.folder / "decoder.plan").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == [RECIPE.folder_name]
    assert is_trusted(plan.digest)
    assert folders.matching(tmp_path, RECIPE, is_given=False) == plan


def test_a_plan_that_somebody_else_built_is_not_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = folders.place(sealed(tmp_path, "a"), tmp_path, RECIPE, is_given=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user"))
    assert folders.matching(tmp_path, RECIPE, is_given=False) is None
    assert folders.matching(tmp_path, RECIPE, is_given=True) == plan


def test_of_two_builders_at_a_time_either_plan_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders.place(sealed(tmp_path, "old"), tmp_path, RECIPE, is_given=False)
    mine, other = sealed(tmp_path, "mine"), sealed(tmp_path, "other")
    rename = os.rename

    def race(source: Path, target: Path) -> None:
        rename(source, target)
        if source == tmp_path / RECIPE.folder_name:
            rename(other, source)  # the other one comes first

    monkeypatch.setattr(folders.os, "rename", race)
    plan = folders.place(mine, tmp_path, RECIPE, is_given=False)
    assert (plan.folder / "decoder.plan").read_text() == "other"


def test_a_plan_of_another_user_is_taken_only_from_a_folder_that_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(source: Path, target: Path) -> None:
        raise OSError(errno.EEXIST, "somebody else was there")

    plan, mine = folders.place(sealed(tmp_path, "old"), tmp_path, RECIPE, is_given=True), sealed(tmp_path, "mine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user"))
    monkeypatch.setattr(folders.os, "rename", busy)
    assert folders.place(mine, tmp_path, RECIPE, is_given=True) == plan
    with pytest.raises(OSError, match="somebody else"):
        folders.place(mine, tmp_path, RECIPE, is_given=False)


def test_what_a_killed_build_left_goes_after_a_day(tmp_path: Path) -> None:
    old, new, other = (tmp_path / name for name in (f".{RECIPE.folder_name}-a", f".{RECIPE.folder_name}-b", ".other"))
    for path, age in ((old, 90_000), (new, 3600), (other, 90_000)):
        path.mkdir()
        (path / "decoder.plan").write_text("half of it")
        os.utime(path, (time.time() - age,) * 2)
    with folders.staging(tmp_path, RECIPE.folder_name, is_given=True):
        assert not old.exists()
    assert {path.name for path in tmp_path.iterdir()} == {new.name, other.name}


def test_a_plan_that_vanishes_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders.place(sealed(tmp_path, "old"), tmp_path, RECIPE, is_given=False)
    mine, rename, tries = sealed(tmp_path, "mine"), os.rename, []

    def gone(source: Path, target: Path) -> None:
        tries.append(source)
        if len(tries) == 1:
            shutil.rmtree(source)
        rename(source, target)

    monkeypatch.setattr(folders.os, "rename", gone)
    assert (folders.place(mine, tmp_path, RECIPE, is_given=False).folder / "decoder.plan").read_text() == "mine"


@pytest.mark.parametrize(
    ("number", "is_given", "mend"),
    [
        (errno.ENOSPC, True, "free the space first"),
        (errno.EROFS, True, "choose another one with --output"),
        (errno.EROFS, False, "choose a folder with --output"),
    ],
)
def test_what_cannot_be_written_says_what_to_do(tmp_path: Path, number: int, is_given: bool, mend: str) -> None:
    with (
        pytest.raises(OutputError, match=mend),
        folders.staging(tmp_path, "name", is_given=is_given),
    ):
        raise OSError(number, os.strerror(number))
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_was_copied_keeps_its_digest(tmp_path: Path) -> None:
    plan = folders.place(sealed(tmp_path / "a", "x"), tmp_path / "a", RECIPE, is_given=False)
    copied = Path(shutil.copytree(plan.folder, tmp_path / "b"))
    assert read_plan(copied).digest == plan.digest


def test_only_a_warning_that_names_an_input_is_an_error() -> None:
    graph: Any = SimpleNamespace(name="decoder.onnx", inputs={"mask": None, "key.0": None})
    heard = Heard()
    heard.add("WARNING", "Unused layer fusion tactic for key.01 and mask_1.")
    network._check_heard(None, graph, heard)  # type: ignore[arg-type]
    for name in graph.inputs:
        heard = Heard()
        heard.add("WARNING", f"Unused Input: {name}")
        with pytest.raises(PlanError, match="leaves an input of"):
            network._check_heard(None, graph, heard)  # type: ignore[arg-type]


def test_plans_for_rtx_cards_can_be_captured() -> None:
    """Without the flag TensorRT for RTX allocates while it runs, which a captured graph cannot."""
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (the tensorrt extra)")
    config = trt.Builder(trt.Logger(trt.Logger.ERROR)).create_builder_config()
    assert not config.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
    rtx.build_for(trt, config, 89)
    assert config.get_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)


def test_the_timing_cache_lives_as_long_as_it_is_in_use(tmp_path: Path) -> None:
    made: list[bytes] = []

    class Config:
        def create_timing_cache(self, blob: bytes) -> bytes:
            made.append(blob)
            return b"of another GPU" if blob else b"empty"

        def set_timing_cache(self, cache: bytes, mismatch: bool) -> bool:
            return cache == b"empty"

    path = tmp_path / "cache"
    path.write_bytes(b"old")
    assert timing.TimingCache(Config(), path)._cache == b"empty"
    assert made == [b"old", b""]
