from __future__ import annotations

import os
from pathlib import Path

import pytest

from cellscribe.engine.atlas.stamps import digest_of, stamp_of
from cellscribe.engine.errors import InputError


@pytest.fixture(params=["file", "store", "10x"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """An input, and a file of it."""
    if request.param == "file":
        (tmp_path / "a.h5ad").write_bytes(b"0123456789")
        return tmp_path / "a.h5ad", tmp_path / "a.h5ad"
    folder = tmp_path / ("a.zarr" if request.param == "store" else "tenx")
    inner = folder / "X" / ".zarray" if request.param == "store" else folder / "barcodes.tsv"
    inner.parent.mkdir(parents=True)
    (folder / ("zarr.json" if request.param == "store" else "matrix.mtx")).write_text("{}")
    inner.write_bytes(b"0123456789")
    return folder, inner


def test_writing_changes_the_stamp_and_other_bytes_change_the_digest(place: tuple[Path, Path]) -> None:
    path, inner = place
    stamp, digest = stamp_of(path), digest_of(path)
    os.utime(inner, ns=(1, 1))
    assert stamp_of(path) != stamp
    assert digest_of(path) == digest
    stamp = stamp_of(path)
    inner.write_bytes(b"012345678x")
    os.utime(inner, ns=(1, 1))
    assert stamp_of(path) == stamp  # neither size nor time tells
    assert digest_of(path) != digest


def test_a_file_that_moves_within_a_folder_changes_both(place: tuple[Path, Path]) -> None:
    path, inner = place
    if path == inner:
        return
    stamp, digest = stamp_of(path), digest_of(path)
    inner.rename(inner.with_name("another"))
    assert (stamp_of(path) == stamp, digest_of(path) == digest) == (False, False)


def test_results_beside_a_10x_matrix_are_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "matrix.mtx").write_text("x")
    stamp = stamp_of(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{}")
    (tmp_path / ".DS_Store").write_text("x")
    assert stamp_of(tmp_path) == stamp


def test_what_is_not_there_is_told(tmp_path: Path) -> None:
    for tells in (stamp_of, digest_of):
        with pytest.raises(InputError, match=r"no file or folder .*gone\.h5ad"):
            tells(tmp_path / "gone.h5ad")
