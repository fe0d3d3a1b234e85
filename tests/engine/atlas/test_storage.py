from __future__ import annotations

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cellscribe.engine.atlas.folder import AtlasFolder
from cellscribe.engine.atlas.inputs import find_inputs
from cellscribe.engine.atlas.job import AtlasJob
from cellscribe.engine.atlas.merge import merge_into
from cellscribe.engine.atlas.run import run_atlas
from cellscribe.engine.atlas.storage import LocalStorage, Storage, storage_of
from cellscribe.engine.atlas.urls import Scratch
from cellscribe.engine.errors import InputError, OutputError, UsageError
from cellscribe.engine.packaged import packaged_cells

JOB = AtlasJob("embed", shard_cells=5, limit=12)


@pytest.fixture
def memory() -> Iterator[str]:
    """An empty place behind a URL."""
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    system = fsspec.filesystem("memory")

    def clear() -> None:
        system.store.clear()
        system.pseudo_dirs[:] = [""]

    clear()
    yield "memory://bucket"
    clear()


@pytest.fixture(params=["folder", "url"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    place = tmp_path / "run" if request.param == "folder" else f"{request.getfixturevalue('memory')}/run"
    made = storage_of(place)
    made.make("shards")
    return made


def _put(storage: Storage, name: str, content: bytes) -> None:
    with storage.replacing(name) as part:
        part.write_bytes(content)


def test_files_are_put_whole_and_listed(storage: Storage) -> None:
    assert storage.names() in (["shards"], [])  # objects know no folders
    _put(storage, "shards/one", b"123")
    _put(storage, "shards/one", b"12345")
    assert storage.sizes("shards") == {"one": 5}
    assert storage.is_file("shards/one")
    assert not storage.is_file("shards/two")
    with storage.open("shards/one") as file:
        assert file.read() == b"12345"
    with pytest.raises(FileNotFoundError):
        storage.open("shards/two")


def test_what_ends_the_writing_leaves_the_old_file(storage: Storage) -> None:
    _put(storage, "one", b"old")
    with pytest.raises(KeyboardInterrupt), storage.replacing("one"):
        raise KeyboardInterrupt
    with storage.open("one") as file:
        assert file.read() == b"old"


def test_files_grow_and_what_a_crash_left_is_removed(storage: Storage) -> None:
    assert [storage.append("shards/.one.part", "x") for _ in range(3)] == [1, 2, 3]
    storage.clean("shards")
    assert storage.sizes("shards") == {}
    assert storage.append("shards/.one.part", "x") == 1
    storage.remove("shards/.one.part")
    storage.remove("shards/.one.part")
    assert storage.append("shards/.one.part", "x") == 1


def test_file_urls_are_folders(tmp_path: Path) -> None:
    found = storage_of(f"file://{tmp_path}/a%20run")
    assert isinstance(found, LocalStorage)
    assert found.path == tmp_path / "a run"


def test_inputs_and_results_behind_urls_are_those_of_folders(memory: str, tmp_path: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe_file("/bucket/in/deep/cells.h5ad", packaged_cells().read_bytes())
    fsspec.filesystem("memory").pipe_file("/bucket/in/notes.txt", b"no cells")
    assert [one.name for one in find_inputs([f"{memory}/in"])] == ["cells.h5ad"]
    assert find_inputs([f"{memory}/in/*/*.h5ad"]) == find_inputs([f"{memory}/in"])
    out = f"{memory}/run"
    behind = run_atlas([f"{memory}/in"], out, JOB)
    here = run_atlas([str(packaged_cells())], tmp_path / "run", JOB)
    for shard in here.manifest.plan.shards:
        ours, theirs = (AtlasFolder(one).read_shard(shard) for one in (out, tmp_path / "run"))
        assert ours.drop_columns("file").equals(theirs.drop_columns("file"))
    assert behind.snapshot.cells == 12
    with pytest.raises(UsageError, match="--resume"):
        run_atlas([f"{memory}/in"], out, JOB)
    assert not run_atlas([f"{memory}/in"], out, JOB, is_resumed=True).had_work
    joined = merge_into(out, packaged_cells(), tmp_path / "joined.h5ad")
    assert joined.n_joined == 12


def test_a_run_that_was_cut_off_before_its_manifest_is_begun_again(storage: Storage) -> None:
    folder = AtlasFolder(storage.path if isinstance(storage, LocalStorage) else storage.name)
    folder.make()
    _put(storage, "notes.txt", b"mine")
    with pytest.raises(OutputError, match="holds other files"):
        folder.make()


def test_a_lost_object_is_made_again(memory: str) -> None:
    import fsspec

    out = f"{memory}/run"
    first = run_atlas([str(packaged_cells())], out, JOB)
    fsspec.filesystem("memory").rm_file("/bucket/run/shards/shard-000001.parquet")
    fsspec.filesystem("memory").pipe_file("/bucket/run/shards/shard-000002.parquet", b"cut")
    again = run_atlas([str(packaged_cells())], out, JOB, is_resumed=True)
    assert again.had_work
    assert [one.sha256 for one in again.records] == [one.sha256 for one in first.records]


def test_a_copy_of_an_input_is_removed(memory: str) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe_file("/bucket/one.h5ad", b"1")
    with Scratch() as scratch:
        copy = scratch.local(f"{memory}/one.h5ad")
        assert copy.read_bytes() == b"1"
        assert scratch.local(packaged_cells()) == packaged_cells()
        with pytest.raises(InputError, match=r"there is no memory://bucket/two\.h5ad"):
            scratch.local(f"{memory}/two.h5ad")
        assert not copy.exists()
    assert not copy.parent.exists()


def test_places_that_cannot_be_used_say_why(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"nosuch://place is no URL that can be used"):
        storage_of("nosuch://place")
    with pytest.raises(InputError, match="stands for no cells"):
        find_inputs([f"{memory}/nothing"])
    real = builtins.__import__

    def without_fsspec(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "fsspec":
            raise ImportError(name="fsspec")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_fsspec)
    with pytest.raises(UsageError, match="s3://bucket/run needs fsspec; `pip install fsspec s3fs`"):
        storage_of("s3://bucket/run")


def test_a_store_that_cannot_be_reached_is_told_in_a_sentence(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def refused(*_: object, **__: object) -> None:
        raise RuntimeError("access denied\nand much more")

    place = storage_of(f"{memory}/run")
    monkeypatch.setattr(MemoryFileSystem, "put_file", refused)
    with pytest.raises(OutputError, match=r"memory://bucket/run cannot be used \(access denied\); check the address"):
        _put(place, "one", b"1")


def _add_and_fail(storage: Storage, name: str) -> None:
    storage.append(name, "3\n")
    raise FileNotFoundError


def test_what_was_added_last_is_there_when_a_run_ends(storage: Storage) -> None:
    with storage.locked():
        for number in range(3):
            storage.append("grown", f"{number}\n")
    with storage.open("grown") as file:
        assert file.read() == b"0\n1\n2\n"
    with pytest.raises(FileNotFoundError), storage.locked():
        _add_and_fail(storage, "grown")
    with storage.open("grown") as file:
        assert file.read() == b"0\n1\n2\n3\n"


def test_a_run_behind_a_url_remembers_every_shard(memory: str) -> None:
    out = f"{memory}/run"
    done = run_atlas([str(packaged_cells())], out, JOB)
    with AtlasFolder(out).storage.open("shards.jsonl") as file:
        assert len(file.read().splitlines()) == len(done.records) == 3


def test_a_chained_url_whose_archive_is_missing_or_damaged_is_told_in_a_sentence(memory: str, tmp_path: Path) -> None:
    url = f"zip://z.h5ad::file://{tmp_path}/zz.zip"
    with pytest.raises(InputError, match=r"there is no zip://z\.h5ad::file.*zz\.zip; check the address"):
        find_inputs([url])
    with Scratch() as scratch, pytest.raises(InputError, match=r"there is no zip://z\.h5ad"):
        scratch.local(url)
    (tmp_path / "zz.zip").write_bytes(b"no archive")
    with pytest.raises(InputError, match=r"zz\.zip cannot be used \("):
        find_inputs([url])


def test_a_place_that_vanishes_while_it_is_listed_is_told(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def gone(*_: object, **__: object) -> None:
        raise FileNotFoundError("gone")

    monkeypatch.setattr(MemoryFileSystem, "isfile", gone)
    with pytest.raises(InputError, match=r"there is no memory://bucket/in; check the address"):
        find_inputs([f"{memory}/in"])


def test_an_input_behind_a_url_is_told_by_its_bytes(memory: str, tmp_path: Path) -> None:
    import fsspec

    system, content = fsspec.filesystem("memory"), packaged_cells().read_bytes()
    system.pipe_file("/bucket/a.h5ad", content)
    run_atlas([f"{memory}/a.h5ad"], tmp_path / "out", JOB)
    system.pipe_file("/bucket/a.h5ad", content)  # written anew, and the same
    assert not run_atlas([f"{memory}/a.h5ad"], tmp_path / "out", JOB, is_resumed=True).had_work
    system.pipe_file("/bucket/a.h5ad", content + b"\0")
    with pytest.raises(UsageError, match=r"a\.h5ad has changed"):
        run_atlas([f"{memory}/a.h5ad"], tmp_path / "out", JOB, is_resumed=True)
