"""How long would 100 million cells take on 8 H100? ``python benchmarks/atlas_estimate.py [--cells N] [--gpus N]``.

An estimate: what a cell costs before and after the model was measured (``reading.json``, ``atlas.json``), what it costs
on an H100 is what bytes and operations allow (``projections.json``), at 65 % and at all of the card's rates. No GPU was
measured.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from results_folder import results_folder

from cellscribe.engine.output.atomic import replacing

DEVICE = "H100 SXM"
SLOTS = (96, 512)
SHARES = (0.65, 1.0)
_ATLAS_VALUES = 1500  # expressed genes of a cell, and the 8 bytes of each
_MEASURED_VALUES = 545
_WIDTH, _MEASURED_WIDTH = 512, 64  # numbers of a vector: of lingocell-1.1b's encoder, of the demonstration's
_LOOKED_AT = 4  # inputs that a run looks through at a time
_DIGEST_RATE = 4.42e9 / 7.8  # bytes a second: one file of a million cells, by hand, other work ran


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=100_000_000)
    parser.add_argument("--gpus", type=int, default=8)
    asked = parser.parse_args()
    folder = results_folder()
    measured = json.loads((folder / "atlas.json").read_text())
    projected = json.loads((folder / "projections.json").read_text())
    reading = json.loads((folder / "reading.json").read_text())["cells_per_second"]["h5ad"]["median"]
    text = page(measured, projected, reading, asked.cells, asked.gpus)
    with replacing(folder / "atlas_estimate.md") as part:
        part.write_text(text, encoding="utf-8")
    print(text)


def page(measured: dict[str, Any], projected: dict[str, Any], reading: float, cells: int, gpus: int) -> str:
    """Return the estimate as Markdown."""
    embed, described = measured["embed"], measured["describe"]
    preparing = 1e6 / reading + embed["stage_microseconds_a_cell"]["tokenise"]
    written = described["output_bytes_a_cell"] + 4 * (_WIDTH - _MEASURED_WIDTH)
    lines = [
        f"# {cells / 1e6:,.0f} million cells described on {gpus} {DEVICE}: an estimate, not a measurement",
        "",
        f"Measured here ({measured['hardware']['processor']}, one core): {preparing:.0f} µs to read a cell of "
        f"{_MEASURED_VALUES} expressed genes and make tokens of it, {described['output_bytes_a_cell']:,.0f} bytes of "
        f"Parquet for its text, genes and vector of {_MEASURED_WIDTH} numbers, here taken as {written:,.0f} for one of "
        f"{_WIDTH}. "
        "An atlas' cell is taken to hold 1,500 expressed genes: 12 KB uncompressed, and as much more "
        "to prepare. Projected (projections.json): lingocell-1.1b in fp16, 96 tokens, at a share of the card's rates.",
        "",
        "| slots | share of rates | ms a cell | cells/s | hours | input, MB/s | output, MB/s | preparing cores |",
        "|---|---|---|---|---|---|---|---|",
    ]
    scale = _ATLAS_VALUES / _MEASURED_VALUES
    for slots in SLOTS:
        for share in SHARES:
            milliseconds = cost(projected, slots, share)
            rate = gpus * 1e3 / milliseconds
            cores = rate * preparing * scale / 1e6
            lines.append(
                f"| {slots} | {100 * share:.0f} % | {milliseconds:.2f} | {rate:,.0f} | {cells / rate / 3600:.1f} | "
                f"{rate * 8 * _ATLAS_VALUES / 1e6:,.0f} | {rate * written / 1e6:,.1f} | {cores:.1f} |"
            )
    lines += [
        "",
        "Embedding alone is bound by the encoder, 81 GFLOP a cell: at 65 % of the fp16 rate "
        f"{gpus * 0.65 * 989e12 / 81e9:,.0f} cells/s, {cells / (gpus * 0.65 * 989e12 / 81e9) / 3600:.1f} hours, and "
        f"{gpus * 0.65 * 989e12 / 81e9 * 8 * _ATLAS_VALUES / 1e6:,.0f} MB/s of input.",
        "",
        f"Before that the head reads all {cells * 8 * _ATLAS_VALUES / 1e12:.1f} TB once for their digests, "
        f"{_LOOKED_AT} files at a time; at {_DIGEST_RATE / 1e9:.2f} GB/s, what one file was read and digested at here, "
        f"that is {cells * 8 * _ATLAS_VALUES / _DIGEST_RATE / _LOOKED_AT / 60:.0f} to "
        f"{cells * 8 * _ATLAS_VALUES / _DIGEST_RATE / 60:.0f} minutes; inputs behind URLs are fetched for it, and "
        "fetched again by who works on them.",
    ]
    return "\n".join(lines) + "\n"


def cost(projected: dict[str, Any], slots: int, share: float) -> float:
    """Milliseconds of a cell in fp16."""
    rows = [
        one
        for one in projected["rows"]
        if (one["device"], one["weights"], one["slots"]) == (DEVICE, "fp16", slots)
        and one["share_of_ceilings"] == share
    ]
    return float(rows[0]["ms_per_cell"])


if __name__ == "__main__":
    main()
