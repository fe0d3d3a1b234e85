"""Files that are sent, read and removed at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from running_service import Running, assert_sentence, wait_until

from cellscribe.engine.service.cell_files import CellFiles
from cellscribe.engine.service.limits import ServiceLimits
from cellscribe.engine.service.problems import RequestError

HDF5 = {"Content-Type": "application/x-hdf5"}


@pytest.fixture
def files(cells_path: Path) -> Iterator[CellFiles]:
    found = CellFiles(cells_path, ServiceLimits(uploads=3, files_under_way=4, client_share=0.5))
    yield found
    found.close()


def kept(files: CellFiles, cells_path: Path, owner: str) -> str:
    path = files.new_path("mine.h5ad")
    path.write_bytes(cells_path.read_bytes())
    return files.add(path, "mine.h5ad", "auto", owner).source_id


def is_there(files: CellFiles, source_id: str) -> bool:
    try:
        return files.get(source_id) is not None
    except RequestError:
        return False


def test_files_under_way_are_counted(files: CellFiles) -> None:
    with files.under_way("a"), files.under_way("a"):
        with pytest.raises(RequestError, match="2 files of yours are being sent or read") as own, files.under_way("a"):
            pass
        with (
            files.under_way("b"),
            files.under_way("c"),
            pytest.raises(RequestError, match="4 files are being sent or read") as full,
            files.under_way("d"),
        ):
            pass
    for one in (own.value, full.value):
        assert (one.status, one.headers()) == (429, {"Retry-After": "5"})
        assert_sentence(one.message)
    for _ in range(5):
        with files.under_way("a"):
            pass
    assert not files._under_way


@pytest.mark.parametrize("path", ["/v1/uploads", "/v1/describe"])
def test_too_many_files_at_a_time_are_429(serving: Callable[..., Running], cells_path: Path, path: str) -> None:
    own, go, raw = serving(files_under_way=1), threading.Event(), cells_path.read_bytes()

    def slowly() -> Iterator[bytes]:
        yield raw[:100]
        go.wait(20)
        yield raw[100:]

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(own.call, "POST", path, slowly(), HDF5)
        wait_until(lambda: own.service.files._under_way.total() == 1)
        second = own.post(path, raw, headers=HDF5)
        assert (second.status, second.headers["retry-after"]) == (429, "5")
        assert_sentence(second.message)
        go.set()
        assert first.result().status in (200, 201)
    assert own.post(path, raw, headers=HDF5).status in (200, 201)
    assert own.service.files._under_way.total() == 0


def test_who_sends_many_files_pushes_out_their_own(files: CellFiles, cells_path: Path) -> None:
    one = kept(files, cells_path, "few")
    mine = [kept(files, cells_path, "many") for _ in range(4)]
    assert is_there(files, one)
    assert [is_there(files, source) for source in mine] == [False, False, True, True]


def test_a_file_that_is_removed_while_it_is_read_stays_until_then(files: CellFiles, cells_path: Path) -> None:
    file = files.get(kept(files, cells_path, "a"))
    with file.reading() as source:
        files.remove(file.source_id)
        assert not is_there(files, file.source_id)
        assert source.is_alive
        assert file.path.exists()
        assert sum(block.matrix.shape[0] for block in source.blocks()) == 24
    assert not file.source.is_alive
    assert not file.path.exists()
    with pytest.raises(RequestError, match="was removed meanwhile; upload it again") as gone, file.reading():
        pass
    assert gone.value.status == 404
    files.end(file)  # once more is no fault


def test_files_go_while_many_read_them(serving: Callable[..., Running], cells_path: Path) -> None:
    own, raw = serving(), cells_path.read_bytes()
    with ThreadPoolExecutor(6) as pool:
        for _ in range(3):
            sent = own.post("/v1/uploads", raw, headers=HDF5).json
            body = {"source": sent["source"], "cell_ids": sent["ids"], "max_new_tokens": 1}
            asked = [pool.submit(own.post, "/v1/describe", body) for _ in range(5)]
            assert own.call("DELETE", f"/v1/uploads/{sent['source']}").status == 204
            for one in asked:
                assert one.result().status in (200, 404), one.result().body
    folder = Path(own.service.files._folder.name)
    wait_until(lambda: not list(folder.iterdir()))
