"""Write the README's tables of compared engines from the result files. ``python benchmarks/readme_tables.py``.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; a test compares it with the files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
README, RESULTS = HERE.parent / "README.md", HERE / "results"
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Entry = Mapping[str, Any]


def main() -> None:
    text = README.read_text(encoding="utf-8")
    part = README.with_name(".README.md.part")
    part.write_text(filled(text), encoding="utf-8")
    part.replace(README)


def filled(text: str) -> str:
    """Return a text with its tables written anew."""
    return _TABLE.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)


def seed_way() -> str:
    """Lay out encoder, prompts, steps and the whole, beside eager torch."""
    head = ("", "encoder", "prompts", "step", "whole", "torch's step, whole / ours (least to most)", "memory")
    return "\n".join([*_head(head), *_seed_rows(_entries("seed_way"))])


def _seed_rows(entries: Mapping[str, Entry]) -> Iterator[str]:
    for key, entry in entries.items():
        rows = {row["who"]: row for row in entry["rows"]}
        torch = next(who for who in rows if who.startswith("torch"))
        for who, row in rows.items():
            parts = row["parts"]
            gain = "" if who == torch else ", ".join(_ratio(entry, torch, who, part) for part in ("step", "whole"))
            cells = key.split(",")[0].replace("1 cells", "1 cell")
            yield _row(
                f"{cells}, {who}",
                *(f"{parts[part]['median']:.2f} s" for part in ("encoder", "prompt")),
                f"{1e3 * parts['step']['median']:.0f} ms",
                f"{parts['whole']['median']:.1f} s",
                gain,
                f"{row['peak_bytes'] / 1e9:.1f} GB",
            )


def plain_llama() -> str:
    """Lay out our engine and the best of the others, at every width and number of slots."""
    head = (
        "bits", "slots", "step: ours, best other", "ratio (least to most)", "of roofline", "whole: ours, best other",
        "ratio (least to most)", "memory: ours, the others",
    )  # fmt: skip
    return "\n".join([*_head(head), *_plain_rows(_entries("plain_llama"))])


def _plain_rows(entries: Mapping[str, Entry]) -> Iterator[str]:
    grouped: dict[tuple[str, int], list[Entry]] = {}
    for key, entry in entries.items():
        grouped.setdefault((key.split(" bits")[0], entry["sizes"]["slots"]), []).append(entry)
    for (bits, slots), found in sorted(grouped.items(), key=lambda one: (int(one[0][0]), one[0][1])):
        cells = [bits, f"{slots}"]
        for part in ("step", "whole"):
            entry, ours, best = min(
                (_closest(one, part) for one in found), key=lambda one: one[0]["ratios"][f"{one[2]} / {one[1]}"][part]
            )
            mine, other = (_of(entry, who, part) for who in (ours, best))
            cells += [f"{mine}; {best} {other}", _ratio(entry, best, ours, part)]
            if part == "step":
                floor = _parts(entry, ours)[part].get("floor", {})
                cells.append(f"{floor['percent_of_roofline']:.0f} %" if floor else "")
        peaks = {row["who"]: row["peak_bytes"] / 1e9 for one in found for row in one["rows"]}
        others = [peak for who, peak in peaks.items() if not who.startswith("cellscribe")]
        mine = next(peak for who, peak in peaks.items() if who.startswith("cellscribe"))
        cells.append(f"{mine:.1f} GB; {min(others):.1f} to {max(others):.1f}")
        yield _row(*cells)


def _closest(entry: Entry, part: str) -> tuple[Entry, str, str]:
    """Return an entry, ours, and the quickest of the others in it."""
    medians = {row["who"]: row["parts"][part]["median"] for row in entry["rows"]}
    ours = next(who for who in medians if who.startswith("cellscribe"))
    return entry, ours, min((who for who in medians if who != ours), key=medians.__getitem__)


def _entries(name: str) -> dict[str, Entry]:
    found: dict[str, Entry] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["comparisons"]
    return {key: one for key, one in found.items() if len(one["rows"]) > 1}


def _parts(entry: Entry, who: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(row["parts"] for row in entry["rows"] if row["who"] == who)
    return found


def _of(entry: Entry, who: str, part: str) -> str:
    median = _parts(entry, who)[part]["median"]
    return f"{1e3 * median:.0f} ms" if median < 1 else f"{median:.1f} s"


def _ratio(entry: Entry, theirs: str, ours: str, part: str) -> str:
    value, low, high = entry["ratios"][f"{theirs} / {ours}"][part]
    return f"{value:.2f}x ({low:.2f} to {high:.2f})"


def _head(cells: tuple[str, ...]) -> list[str]:
    return [_row(*cells), "|" + "---|" * len(cells)]


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


TABLES = {"seed_way": seed_way, "plain_llama": plain_llama}


if __name__ == "__main__":
    main()
