"""Cells found by text, texts by cell: vectors kept on disk, and the nearest ones of a query."""

from cellscribe.engine.search.index import CellIndex, open_index

__all__ = ["CellIndex", "open_index"]
