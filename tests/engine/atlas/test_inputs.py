from __future__ import annotations

from pathlib import Path

import pytest

from cellscribe.engine.atlas.inputs import _named, find_inputs
from cellscribe.engine.errors import InputError, UsageError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "a/one.h5ad",
        "a/two.h5ad",
        "b/one.h5ad",
        "b/notes.txt",
        "b/.hidden.h5ad",
        "c/run/matrix.mtx.gz",
        "d.h5",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    store = tmp_path / "b" / "store.zarr"
    store.mkdir()
    (store / "zarr.json").write_text("{}")
    (store / "inner.h5ad").write_bytes(b"x")
    return tmp_path


def names(*given: str) -> list[str]:
    return [one.name for one in find_inputs(given)]


def test_a_folder_stands_for_what_lies_below(tree: Path) -> None:
    assert names(str(tree)) == ["a/one.h5ad", "a/two.h5ad", "b/one.h5ad", "b/store.zarr", "c/run", f"{tree.name}/d.h5"]


def test_patterns_and_names_keep_their_order_and_count_once(tree: Path) -> None:
    assert names(f"{tree}/b/*.h5ad", str(tree / "a"), str(tree / "a" / "one.h5ad")) == [
        "b/one.h5ad", "a/one.h5ad", "a/two.h5ad",
    ]  # fmt: skip
    assert names(f"{tree}/**/two.h5ad") == ["two.h5ad"]


def test_a_name_with_signs_of_a_pattern_is_a_name(tree: Path) -> None:
    odd = tree / "cells[1].h5ad"
    odd.write_bytes(b"x")
    assert names(str(odd)) == ["cells[1].h5ad"]


@pytest.mark.parametrize("given", ["absent.h5ad", "a/*.zarr", "b/notes"])
def test_what_stands_for_nothing_is_refused(tree: Path, given: str) -> None:
    with pytest.raises(InputError, match="check"):
        find_inputs([str(tree / given)])


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no cells"):
        find_inputs([str(tmp_path)])


def test_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="no input"):
        find_inputs([])


def test_links_that_lead_back_are_walked_once(tree: Path) -> None:
    expected = names(str(tree))
    for name in ("again", "and again", "b/up"):
        (tree / name).symlink_to(tree)
    assert sorted(names(str(tree))) == sorted(expected)


def test_addresses_that_differ_by_a_slash_have_names_of_their_own() -> None:
    found = ["s3://b/x//c.h5ad", "s3://b/x/c.h5ad"]
    assert [one.name for one in _named(list(found))] == found
    assert [one.name for one in _named(["s3://b/x/c.h5ad", "s3://b/y/c.h5ad"])] == ["x/c.h5ad", "y/c.h5ad"]
