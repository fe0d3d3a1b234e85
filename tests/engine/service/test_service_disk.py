"""Disks that are full, and uploads that take more of one than they may."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running_service import Running, assert_sentence

from cellscribe.engine.errors import UsageError
from cellscribe.engine.service.cell_files import CellFiles
from cellscribe.engine.service.limits import ServiceLimits
from cellscribe.engine.service.problems import RequestError

HDF5 = {"Content-Type": "application/x-hdf5"}


@pytest.mark.parametrize("path", ["/v1/uploads", "/v1/describe"])
@pytest.mark.parametrize("what", ["open", "mkdir"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_507(
    serving: Callable[..., Running], monkeypatch: pytest.MonkeyPatch, path: str, what: str, code: int
) -> None:
    own = serving()
    plain = getattr(Path, what)

    def full(self: Path, *args: Any, **more: Any) -> Any:
        if "cellscribe-uploads" not in str(self):
            return plain(self, *args, **more)
        if what == "open":
            plain(self, "wb").close()
        raise OSError(code, os.strerror(code), str(self))

    with monkeypatch.context() as patched:
        patched.setattr(Path, what, full)
        found = own.post(path, b"\x89HDF" * 1_000, headers=HDF5)
    assert (found.status, found.json["error"]["type"]) == (507, "server_error")
    assert "the disk of the service has no room" in found.message
    assert_sentence(found.message)
    assert list(Path(own.service.files._folder.name).iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_disk_that_fills_while_a_file_is_written_is_507(
    serving: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = serving()
    plain = own.service.files.new_path

    def full(name: str) -> Path:
        path = plain(name)
        path.symlink_to("/dev/full")
        return path

    monkeypatch.setattr(own.service.files, "new_path", full)
    found = own.post("/v1/uploads", b"\x89HDF" * 100_000, headers=HDF5)
    assert (found.status, found.headers["retry-after"]) == (507, "5")
    assert list(Path(own.service.files._folder.name).iterdir()) == []


def test_uploads_make_room_for_the_next_one(serving: Callable[..., Running], cells_path: Path) -> None:
    raw = cells_path.read_bytes()
    own = serving(disk_bytes=len(raw) * 5 // 2, upload_bytes=len(raw), client_share=1.0)
    sent = [own.post("/v1/uploads", raw, headers=HDF5).json["source"] for _ in range(3)]
    found = [own.get(f"/v1/cells?source={one}").status for one in sent]
    assert found == [404, 200, 200]
    assert len(list(Path(own.service.files._folder.name).iterdir())) == 2
    assert own.post("/v1/embed", raw, headers=HDF5).status == 200
    assert own.call("DELETE", f"/v1/uploads/{sent[2]}").status == 204
    assert not own.service.files._disk.of_owners()


def test_nothing_is_pushed_out_in_vain(cells_path: Path) -> None:
    raw = cells_path.read_bytes()
    files = CellFiles(cells_path, ServiceLimits(disk_bytes=3 * len(raw), upload_bytes=3 * len(raw)))
    kept = []
    for owner in ("a", "b"):
        path = files.new_path("mine.h5ad")
        files.grow(path, owner, len(raw))
        path.write_bytes(raw)
        kept.append(files.add(path, "mine.h5ad", "auto", owner))
    with kept[1].reading(), pytest.raises(RequestError, match="take most of the"):
        files.grow(files.new_path("large.h5ad"), "b", 2 * len(raw))  # a's would not be enough, b's own is being read
    assert [files.get(one.source_id) for one in kept] == kept
    files.grow(files.new_path("large.h5ad"), "b", 2 * len(raw))
    assert files.get(kept[0].source_id) is kept[0]
    with pytest.raises(RequestError, match="there is no file"):
        files.get(kept[1].source_id)
    files.close()


def test_nobody_pushes_out_who_has_less(cells_path: Path) -> None:
    raw = cells_path.read_bytes()
    files = CellFiles(cells_path, ServiceLimits(disk_bytes=3 * len(raw), upload_bytes=len(raw)))

    def sent(owner: str) -> Path:
        path = files.new_path("mine.h5ad")
        files.grow(path, owner, len(raw))
        path.write_bytes(raw)
        return path

    few = files.add(sent("few"), "mine.h5ad", "auto", "few")
    sending = [sent("many") for _ in range(2)]
    with pytest.raises(RequestError, match="the files that are here take most of the") as found:
        sent("many")
    assert (found.value.status, found.value.headers()) == (429, {"Retry-After": "5"})
    assert_sentence(found.value.message)
    assert files.get(few.source_id) is few
    files.discard(sending[0])
    sent("many")
    files.close()


def test_a_file_that_could_never_be_taken_is_refused_at_the_start() -> None:
    with pytest.raises(UsageError, match=r"\(--max-upload-mb\), and all files together only 1,000 \(--max-disk-mb\)"):
        ServiceLimits(disk_bytes=1_000)
