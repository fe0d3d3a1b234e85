"""Runs over small folders, as several tests make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cellscribe.engine.atlas.job import AtlasJob
from cellscribe.engine.atlas.run import Outcome, run_atlas

EMBED = AtlasJob("embed", shard_cells=16)
DESCRIBE = AtlasJob("describe", shard_cells=8, max_new_tokens=32)


def table(out: Path) -> pa.Table:
    """Return the rows of all shards."""
    return pa.concat_tables(pq.read_table(one) for one in sorted((out / "shards").glob("*.parquet")))


def run(files: Path, out: Path, job: AtlasJob = EMBED, **options: Any) -> Outcome:
    """Run over a folder."""
    return run_atlas([str(files)], out, job, **options)
