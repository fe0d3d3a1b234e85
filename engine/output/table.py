"""Plain tables as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cellscribe.engine.output.atomic import replacing

if TYPE_CHECKING:
    import pandas as pd

TABLES = (".csv", ".parquet", ".jsonl")


def write_table(table: pd.DataFrame, out: Path) -> None:
    """Write a table in the format of `out`'s ending (one of :data:`TABLES`), whole or not at all.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    with replacing(out) as part:
        if out.suffix == ".parquet":
            table.to_parquet(part, index=False)
        elif out.suffix == ".jsonl":
            table.to_json(part, orient="records", lines=True, force_ascii=False)
        else:
            table.to_csv(part, index=False)
