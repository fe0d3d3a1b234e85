from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cellscribe.engine.bench import made_by
from cellscribe.engine.bench.made_by import LIBRARY, hash_of, library_hash, versions_with_library
from cellscribe.engine.versions import versions
from cellscribe.kernels import cpu_library


def test_a_file_is_named_by_its_hash(tmp_path: Path) -> None:
    (tmp_path / "library").write_bytes(b"code")
    assert hash_of(tmp_path / "library") == hashlib.sha256(b"code").hexdigest()[:12]


def test_the_library_that_is_loaded_is_among_the_versions() -> None:
    path = cpu_library.library_path()
    if path is None or cpu_library.load_cpu_library() is None:
        pytest.skip("the package was built without a C++ compiler")
    assert versions_with_library() == {**versions(), LIBRARY: hash_of(path)}


def test_a_library_that_cannot_be_loaded_made_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.so").write_bytes(b"code")
    monkeypatch.setenv(cpu_library.PATH_VARIABLE, str(tmp_path / "broken.so"))
    assert library_hash() is None
    assert versions_with_library() == versions()
    monkeypatch.setattr(made_by, "library_path", lambda: None)
    assert library_hash() is None
