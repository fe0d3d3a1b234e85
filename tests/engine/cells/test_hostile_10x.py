"""10x files and folders that lie or are damaged: each is one sentence."""

from __future__ import annotations

import gzip
import os

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusing import refuse, refuse_here
from writing import tenx_h5, tenx_mtx

from cellscribe.engine.cells import ReadLimits

SMALL = ReadLimits(free_bytes=10_000, max_expansion=20)


@pytest.fixture
def path(cells, tmp_path):
    return tenx_h5(cells, tmp_path)


@pytest.fixture
def folder(cells, tmp_path):
    return tenx_mtx(cells, tmp_path)


def replace(path, key, **how):
    with h5py.File(path, "r+") as file:
        del file[key]
        file.create_dataset(key, **how)


@pytest.mark.parametrize("kind", ["soft", "external"])
@pytest.mark.parametrize("key", ["matrix", "matrix/data", "matrix/barcodes", "matrix/features/name"])
def test_links(path, tmp_path, kind, key):
    os.link(path, tmp_path / "other.h5")
    with h5py.File(path, "r+") as file:
        file["copy"] = file[key]
        del file[key]
        file[key] = h5py.SoftLink("/copy") if kind == "soft" else h5py.ExternalLink("other.h5", "/copy")
    refuse_here(path, "is a link")


def test_data_elsewhere_or_declared(path, tmp_path):
    (tmp_path / "secret").write_bytes(b"\x01" * 4096)
    many = {"shape": (2_000_000_000,), "dtype": "i4", "chunks": (4096,), "compression": "gzip"}
    for how, match in (
        ({"shape": (90,), "dtype": "i4", "external": [(str(tmp_path / "secret"), 0, 360)]}, "in other files"),
        (many, "declares 8,000,000,000 bytes but stores 0"),
    ):
        replace(path, "matrix/data", **how)
        refuse(path, match)


@pytest.mark.parametrize(
    ("key", "change", "match"),
    [
        ("indices", lambda a: a + 12, "outside its 12"),
        ("indptr", lambda a: a[::-1], "pointers"),
        ("indptr", lambda a: a[:-1], "differ in length"),
        ("data", lambda a: a[:-1], "differ in length"),
        ("shape", lambda a: a + 1, "differ in length|names 12 features"),
        ("shape", lambda a: a[:1], "two whole numbers"),
        ("shape", lambda a: a.astype("f8"), "two whole numbers"),
        ("barcodes", lambda a: np.arange(9), "where names belong"),
        ("barcodes", lambda a: a[:-1], "names 12 features and 8 cells"),
        ("features/id", lambda a: a[:-1], "differ in number"),
        ("features/name", lambda a: a[:-1], "differ in number"),
    ],
)
def test_damaged(path, key, change, match):
    with h5py.File(path) as file:
        changed = change(file[f"matrix/{key}"][()])
    replace(path, f"matrix/{key}", data=changed)
    refuse_here(path, match)


def test_values_below_zero_and_sentences_of_the_reading_process(path, folder):
    rewrite(folder, "matrix.mtx.gz", entry("1 1 -4"))
    refuse(folder, "below zero")
    rewrite(folder, "matrix.mtx.gz", entry("13 1 4"))
    refuse(folder, "entry at 13, outside")
    replace(path, "matrix/data", data=np.full(99, -2))
    refuse(path, "below zero|differ in length")
    replace(path, "matrix/shape", data=[3])
    refuse(path, "two whole numbers")


def test_several_genomes_or_none(cells, tmp_path):
    path = tenx_h5(cells, tmp_path, 2)
    with h5py.File(path, "r+") as file:
        file.copy("GRCh38", "mm10")
    refuse(path, r"several genomes \(GRCh38, mm10\)")
    with h5py.File(path, "w") as file:
        file["matrix/data"] = np.ones(3)
    refuse(path, "no .h5ad and no 10x file")


def rewrite(folder, name, change):
    """Change the text of a file, compressed or not."""
    path = folder / name
    text = gzip.decompress(path.read_bytes()).decode() if name.endswith(".gz") else path.read_text()
    changed = change(text)
    changed = changed if isinstance(changed, bytes) else changed.encode()
    path.write_bytes(gzip.compress(changed) if name.endswith(".gz") else changed)


def entry(text, place=3):
    """Replace an entry."""
    return lambda old: "\n".join([*old.split("\n")[:place], text, *old.split("\n")[place + 1 :]])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda old: old.rstrip("\n").rpartition("\n")[0] + "\n",
            "so it is truncated",
        ),
        (lambda old: old + "1 1 1\n", "holds more"),
        (entry("13 1 1"), "entry at 13, outside"),
        (entry("1 10 1"), "entry at 10, outside"),
        (entry("0 1 1"), "entry at 0, outside"),
        (entry("-1 1 1"), "entry at -1, outside"),
        (entry("1 1 1.5"), "not three whole numbers.*1.5"),
        (entry("1 1 x"), "not three whole numbers"),
        (entry("1 1"), "not three whole numbers"),
        (entry("1 1 1 1"), "not three whole numbers"),
        (entry("1 1 "), "not three whole numbers"),
        (entry("5000000000 1 1"), "not three whole numbers"),
        (entry("1 1 99999999999999999999"), "not three whole numbers"),
        (entry("1 1 7", 4), "one gene twice"),
        (entry("12 9 5000", 2), "declares 5,000 entries, more than its 12 x 9"),
        (entry("12 9", 2), "does not say how many"),
        (entry("12 9 -1", 2), "does not say how many"),
        (entry("13 9 70", 2), "counts of 13 features in 9 cells, and names 12"),
        (lambda old: old.replace("general", "symmetric"), "coordinate integer symmetric"),
        (lambda old: old.replace("integer", "pattern"), "coordinate pattern general"),
        (lambda old: old.replace("integer", "complex"), "coordinate complex general"),
        (lambda old: old.replace("coordinate", "array"), "array integer general"),
        (lambda old: old.replace("%%MatrixMarket", "%%Matrix"), "does not begin with"),
        (lambda old: "", "does not begin with"),
        (lambda old: os.urandom(4000), "does not begin with"),
    ],
)
def test_matrices(folder, change, match):
    rewrite(folder, "matrix.mtx.gz", change)
    refuse_here(folder, match)


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("barcodes.tsv.gz", lambda old: old + "one-more\n", "names 12 features and 10 cells"),
        ("barcodes.tsv.gz", lambda old: b"\xff" + old.encode(), "not UTF-8"),
        ("features.tsv.gz", lambda old: old + "ID\tNAME\tGene Expression\n", "names 13 features"),
        ("features.tsv.gz", lambda old: old.replace("\t", " ", 1), "Line 2 of features.tsv.gz"),
        ("features.tsv.gz", lambda old: "", "names 0 features"),
    ],
)
def test_names(folder, name, change, match):
    rewrite(folder, name, change)
    refuse_here(folder, match)


@pytest.mark.parametrize("name", ["matrix.mtx.gz", "barcodes.tsv.gz", "features.tsv.gz"])
def test_files_that_are_missing_truncated_or_elsewhere(folder, tmp_path, name):
    path, whole = folder / name, (folder / name).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refuse_here(folder, f"{name} of matrices ends too early")
    path.write_bytes(whole[:20] + os.urandom(30) + whole[50:])
    refuse_here(folder, "not what gzip wrote|ends too early|does not begin|not UTF-8|entry|fetch it again")
    path.rename(tmp_path / name)
    path.symlink_to(tmp_path / name)
    refuse_here(folder, "is a link out of the folder")
    path.unlink()
    refuse_here(folder, "is a folder without" if "matrix" in name else "has no .*so it is not complete")
    os.mkfifo(path)
    refuse_here(folder, "is a folder without" if "matrix" in name else "not a regular file")


@pytest.mark.parametrize("name", ["matrix.mtx.gz", "barcodes.tsv.gz", "features.tsv.gz"])
@pytest.mark.parametrize("filler", ["\n", " ", "1 1 1\n"])
def test_gzip_bombs(folder, name, filler):
    rewrite(folder, name, lambda old: old + filler * 200_000)
    refuse_here(folder, "grows beyond|holds more", SMALL)


def test_entries_beyond_what_is_stored(folder):
    rewrite(folder, "matrix.mtx.gz", entry("12000000 9000000 9000000000000", 2))
    refuse_here(folder, "declares 9,000,000,000,000 entries, more than")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(alphabet="0123456789 .-+eE\t\n\r%nainf", max_size=60))
def test_no_text_for_entries_is_more_than_a_sentence(folder, text):
    head = "%%MatrixMarket matrix coordinate real general\n12 9 107\n"
    rewrite(folder, "matrix.mtx.gz", lambda _: head + text)
    refuse_here(folder, "matrix.mtx.gz of matrices")
