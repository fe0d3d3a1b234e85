from __future__ import annotations

from cellscribe.engine.atlas.failures import Failures


def test_reasons_that_differ_in_numbers_and_names_are_one() -> None:
    failures = Failures()
    for i, value in enumerate(("-1", "nan", "-2.5", "inf", "1e+20", "-1,000")):
        failures.add(f"c{i}", f"failed: it holds {value} for gene 'G{i}', and counts are finite and not negative")
    failures.add("d", "failed: it has no counts")
    assert list(failures.rows()) == [
        ("it holds -1 for gene 'G0', and counts are finite and not negative, and others like it", "6",
         "c0, c1, c2, c3, c4, ..."),
        ("it has no counts", "1", "d"),
    ]  # fmt: skip


def test_the_same_reason_has_no_others_like_it_and_genes_are_no_numbers() -> None:
    failures = Failures()
    for why in ("see CD3", "see CD3", "see CD4"):
        failures.add("c", f"failed: {why}")
    assert [row[:2] for row in failures.rows()] == [("see CD3", "2"), ("see CD4", "1")]


def test_reasons_that_are_left_out_are_counted() -> None:
    failures = Failures()
    for i in range(23):
        failures.add("c", "failed: " + "a" * (i + 1))
    failures.add("c", "failed: a")
    rows = list(failures.rows())
    assert len(rows) == 21
    assert rows[0][1] == "2"
    assert rows[-1] == ("and 3 other reasons", "3", "")


def test_nothing_failed() -> None:
    assert list(Failures().rows()) == []
