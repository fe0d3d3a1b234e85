from __future__ import annotations

import numpy as np
import pytest

from cellscribe.engine.cells import CellInput, CellTokenizer, GeneVocabulary, match_genes, open_cells
from cellscribe.engine.cells.gene_names import id_by_symbol, symbol_by_id, write_gene_ids
from cellscribe.engine.errors import BundleError, InputError

SYMBOLS = GeneVocabulary(("<pad>", "<cls>", "CD3D", "ENSA", "MATR3", "SEPTIN7", "NIBAN1", "ACTB", "C1orf112", "IL8"))
ENSEMBL = GeneVocabulary(("<pad>", "<cls>", "ENSG00000167286", "ENSG00000143420", "ENSG00000075624"))


def matched(names, vocabulary=SYMBOLS, **columns):
    match = match_genes(names, vocabulary, **columns)
    return [vocabulary.tokens[t] if t >= 0 else None for t in match.token_of_column], match.report


@pytest.mark.parametrize(
    ("name", "token", "kind"),
    [
        ("CD3D", "CD3D", "symbol"),
        ("ENSA", "ENSA", "symbol"),
        ("ENSG00000167286", "CD3D", "ensembl"),
        ("ENSG00000167286.8", "CD3D", "ensembl_version"),
        ("CD3D_ENSG00000167286", "CD3D", "symbol_ensembl"),
        ("CD3D_ENSG00000167286.8", "CD3D", "symbol_ensembl"),
        ("Actb", "ACTB", "mouse_case"),
        ("C1ORF112", "C1orf112", "mouse_case"),
        ("SEPT7", "SEPTIN7", "synonym"),
        ("FAM129A", "NIBAN1", "synonym"),
        ("CXCL8", "IL8", "synonym"),
        ("Sept7", "SEPTIN7", "mouse_case"),
        ("MATR3-1", None, None),
        ("<cls>", None, None),
        ("<pad>", None, None),
        ("nonsense", None, None),
    ],
)
def test_one_gene(name, token, kind):
    tokens, report = matched([name])
    assert tokens == [token]
    assert report.by_kind == ({kind: 1} if kind else {})


def test_ensembl_vocabulary():
    names = ["CD3D", "ENSA", "ENSG00000075624.14", "Actb", "XYZ"]
    tokens, report = matched(names, ENSEMBL)
    assert tokens == ["ENSG00000167286", "ENSG00000143420", "ENSG00000075624", None, None]
    assert report.by_kind["symbol"] == 2


def test_columns_of_var_help():
    tokens, _ = matched(["a", "b"], ensembl=["ENSG00000167286", None], symbols=[None, "ENSA"])
    assert tokens == ["CD3D", "ENSA"]
    named = GeneVocabulary(("<pad>", "<cls>", "NEWNAME"), ensembl=(None, None, "ENSG00000167286.3"))
    assert matched(["x"], named, ensembl=["ENSG00000167286"])[0] == ["NEWNAME"]


def test_weak_likeness_never_displaces_or_doubles():
    assert matched(["Actb", "ACTB"])[0] == [None, "ACTB"]
    tokens, report = matched(["Actb", "aCTB", "CD3D"])
    assert tokens == [None, None, "CD3D"]
    assert report.by_kind["ambiguous"] == 2
    assert matched(["SEPT7", "SEPTIN7"])[0] == [None, "SEPTIN7"]


def test_report_speaks():
    names = ["CD3D", "CD3D", "1-Mar", "Sep-7", "ENSMUSG00000000001"]
    _, report = matched(names)
    assert report.by_kind == {"symbol": 2, "duplicate": 1, "excel_date": 2}
    said = report.sentence()
    for part in ("2 of the file's 5", "repeat a gene", "spreadsheet", "another species", "Only 40%"):
        assert part in said
    stored = report.as_dict()
    assert stored["fraction"] == pytest.approx(0.4)
    assert stored["unmatched"] == ["1-Mar", "Sep-7", "ENSMUSG00000000001"]


def test_floor_depends_on_the_selection(cells, vocabulary, fixed):
    spec = CellInput("fixed", "all", 100)
    cells.var_names = [*cells.var_names[:2], *(f"other{i}" for i in range(10))]
    for selection in (spec, fixed):
        with open_cells(cells) as source, pytest.raises(InputError, match=r"Only 17%.*gene symbols or Ensembl"):
            CellTokenizer(selection, vocabulary, source)
    cells.var_names = ["CD3D", "CD8A", "MS4A1", *(f"other{i}" for i in range(9))]
    with open_cells(cells) as source:
        assert "so results may be poor" in CellTokenizer(spec, vocabulary, source).report.warning


def test_no_gene_matches(cells, vocabulary, fixed):
    cells.var_names = [f"probe_{i}" for i in range(cells.n_vars)]
    with open_cells(cells) as source, pytest.raises(InputError, match="unknown: probe_0"):
        CellTokenizer(fixed, vocabulary, source)


def test_vocabulary_file(tmp_path):
    kept = GeneVocabulary(("<pad>", "A", "<cls>"), (None, "ENSG1", None), ("A",))
    kept.save(tmp_path / "genes.json")
    assert GeneVocabulary.load(tmp_path / "genes.json") == kept
    assert (kept.pad_id, kept.cls_id, kept.index["A"]) == (0, 2, 1)
    for text in ("", "[]", '{"tokens": 3}', '{"tokens": ["A"]}', '{"tokens": ["<pad>", "<cls>", "<cls>"]}'):
        (tmp_path / "genes.json").write_text(text)
        with pytest.raises(BundleError):
            GeneVocabulary.load(tmp_path / "genes.json")
    with pytest.raises(BundleError):
        GeneVocabulary.load(tmp_path / "none.json")


def test_packaged_table(tmp_path):
    assert id_by_symbol()["CD3D"] == "ENSG00000167286"
    assert len(id_by_symbol()) == len(symbol_by_id()) == 40_248
    write_gene_ids(id_by_symbol(), tmp_path / "again.gz")
    from cellscribe.engine.cells import gene_names

    assert (tmp_path / "again.gz").stat().st_size == (gene_names._DATA / "gene_ids.tsv.gz").stat().st_size


def test_real_names(shared):
    names = ("<pad>", "<cls>", *id_by_symbol())
    with open_cells(shared / "data/scp1884.h5ad") as source:
        match = match_genes(source.var_names, GeneVocabulary(names), ensembl=source.var_ensembl)
    assert match.report.fraction > 0.6
    assert match.report.by_kind["symbol_ensembl"] > 0
    assert np.all(match.token_of_column != 0)
