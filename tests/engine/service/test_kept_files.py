"""How many files are kept, for how long, and what becomes of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from picking import HDF5, folder_of, upload
from running_service import Running, assert_sentence

from cellscribe.engine.service.cell_files import CellFiles
from cellscribe.engine.service.limits import ServiceLimits
from cellscribe.engine.service.problems import RequestError


def test_only_so_many_files_are_kept(serving: Callable[..., Running], cells_path: Path) -> None:
    two = serving(uploads=2)
    first, second = (upload(two, cells_path).json["source"] for _ in range(2))
    assert two.get(f"/v1/cells?source={first}").status == 200  # used last
    third = upload(two, cells_path).json["source"]
    assert [two.get(f"/v1/cells?source={x}").status for x in (first, second, third)] == [200, 404, 200]
    assert two.figure("cellscribe_uploads") == 2
    assert len(list(folder_of(two).iterdir())) == 2
    described = two.post("/v1/describe?max_new_tokens=1", cells_path.read_bytes(), headers=HDF5)
    assert described.status == 200  # and throws nobody out
    assert [two.get(f"/v1/cells?source={x}").status for x in (first, third)] == [200, 200]


def test_files_as_bodies_at_the_same_time_do_not_push_each_other_out(
    serving: Callable[..., Running], cells_path: Path
) -> None:
    one, found = serving(uploads=1), list[int]()

    def ask() -> None:
        found.append(one.post("/v1/describe?max_new_tokens=1", cells_path.read_bytes(), headers=HDF5).status)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [200] * 3


def test_files_expire_after_their_last_use(serving: Callable[..., Running], cells_path: Path) -> None:
    brief = serving(upload_s=60)
    source = upload(brief, cells_path).json["source"]
    file = brief.service.files.get(source)
    for _ in range(3):
        file.used -= 40  # as if time had passed
        assert brief.get(f"/v1/cells?source={source}").json["expires_s"] == 60
    file.used -= 61
    assert brief.figure("cellscribe_uploads") == 0  # nobody asked for a file
    assert list(folder_of(brief).iterdir()) == []
    found = brief.get(f"/v1/cells?source={source}")
    assert (found.status, found.json["error"]["param"]) == (404, "source")


def test_a_file_that_goes_while_it_is_read_is_no_failure_of_the_service(
    serving: Callable[..., Running], cells_path: Path
) -> None:
    own = serving()
    source = upload(own, cells_path).json["source"]
    own.service.files._uploads[source].close()  # as another request does whose upload takes its place
    found = own.post("/v1/describe", {"source": source, "cell_ids": [own.get("/v1/cells").json["ids"][0]]})
    assert 400 <= found.status < 500, found.body
    assert_sentence(found.message)


def test_the_folder_goes_with_the_service(cells_path: Path) -> None:
    files = CellFiles(cells_path, ServiceLimits())
    path = files.new_path("mine.h5ad")
    path.write_bytes(cells_path.read_bytes())
    kept = files.add(path, "mine.h5ad", "auto")
    assert files.get(kept.source_id) is kept
    files.close()
    assert not path.parent.parent.exists()
    assert cells_path.exists()
    assert not kept.source.is_alive


def test_the_file_of_the_start_stays(cells_path: Path) -> None:
    files = CellFiles(cells_path, ServiceLimits())
    with pytest.raises(RequestError, match="stays"):
        files.remove("demo")
    assert files.get("demo").source.n_cells == 24
    files.close()
