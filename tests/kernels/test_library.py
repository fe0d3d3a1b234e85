from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from cellscribe.kernels.library import KernelError, KernelLibrary, fingerprint, library_path
from cellscribe.kernels.parameters import PARAMETERS
from cellscribe.kernels.parameters.latent_cross import LatentCross


def test_the_library_knows_the_structs_of_this_release(emulated_kernels: Path) -> None:
    library = KernelLibrary(emulated_kernels)
    assert (
        library.workspace("latent_cross", LatentCross(num_slots=1, num_heads=1, num_tokens=1, num_genes=1, width=64))
        > 0
    )
    assert [struct.__name__ for struct in PARAMETERS] == sorted(struct.__name__ for struct in PARAMETERS)


@pytest.mark.parametrize("body", ["", "long long cellscribe_fingerprint(void) { return 7; }"])
def test_a_library_of_another_release_is_refused(tmp_path: Path, body: str) -> None:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc")
    (tmp_path / "other.c").write_text(body)
    made = tmp_path / "other.so"
    subprocess.run([compiler, "-shared", "-fPIC", str(tmp_path / "other.c"), "-o", str(made)], check=True)
    with pytest.raises(KernelError, match=r"other\.so was built from another release; install cellscribe anew"):
        KernelLibrary(made)


def test_a_refusal_names_the_kernel_and_why(emulated_kernels: Path) -> None:
    library = KernelLibrary(emulated_kernels)
    with pytest.raises(KernelError, match="the kernel latent_cross failed: it is not built for these sizes"):
        library("latent_cross", LatentCross())


def test_the_fingerprint_changes_with_a_field(monkeypatch: pytest.MonkeyPatch) -> None:
    class Longer(ctypes.Structure):
        _fields_ = (*LatentCross._fields_, ("more", ctypes.c_int64))

    before = fingerprint()
    changed = tuple(Longer if one is LatentCross else one for one in PARAMETERS)
    monkeypatch.setattr("cellscribe.kernels.library.PARAMETERS", changed)
    assert fingerprint() != before


def test_the_package_says_where_its_library_is_or_that_there_is_none() -> None:
    found = library_path()
    assert found is None or KernelLibrary(found)
