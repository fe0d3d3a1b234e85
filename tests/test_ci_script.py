"""The whole check is green only where all of it ran."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / ".ci/run"


def command(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The only folder of commands; apt-get finds no packages."""
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    command(tmp_path, "apt-get", "exit 100")
    return tmp_path


def run(machine: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(machine), **variables}
    return subprocess.run(
        [machine / "bash", SCRIPT], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def test_without_a_browser_it_fails_with_a_sentence(machine: Path) -> None:
    command(machine, "make", "echo made")
    done = run(machine)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "no Chromium for the tests of the page" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("is_named", [False, True])
def test_a_browser_is_named_to_the_tests(machine: Path, is_named: bool) -> None:
    name = "my-browser" if is_named else "chromium"
    command(machine, name, "")
    command(machine, "make", 'echo "$CELLSCRIBE_CHROMIUM"; exit 3')
    done = run(machine, **({"CELLSCRIBE_CHROMIUM": str(machine / name)} if is_named else {}))
    assert (done.returncode, done.stdout.strip()) == (3, str(machine / name))
