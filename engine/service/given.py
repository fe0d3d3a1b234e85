"""The cells that a body gives whole."""

from __future__ import annotations

import numpy as np

from cellscribe.engine.service.map_values import GeneMap
from cellscribe.engine.service.problems import RequestError
from cellscribe.engine.service.schemas import Cells


def gene_maps(body: Cells, most_genes: int) -> list[GeneMap]:
    """Return the cells that a body gives whole.

    Raises
    ------
    RequestError
        413 for a cell of too many genes, 422 for indices without names, a name twice, or two cells of one name.
    """
    names, maps = body.gene_names or [], list[GeneMap]()
    if len(set(names)) < len(names):
        name = next(one for i, one in enumerate(names) if one in names[:i])
        raise RequestError(422, f"gene_names has {name!r} twice; add its values up, or leave one out.", "gene_names")
    for i, cell in enumerate(body.cells or ()):
        if cell.genes is not None:
            mine, values = list(cell.genes), np.fromiter(cell.genes.values(), np.float64, len(cell.genes))
        else:
            assert cell.indices is not None
            assert cell.values is not None
            beyond = next((at for at in cell.indices if at >= len(names)), None)
            if beyond is not None:
                raise RequestError(
                    422, f"cells[{i}].indices points at gene {beyond}, and gene_names has {len(names)} of them.",
                    f"cells[{i}].indices",
                )  # fmt: skip
            mine, values = [names[at] for at in cell.indices], np.array(cell.values, np.float64)
        if len(mine) > most_genes:
            raise RequestError(413, f"cells[{i}] has {len(mine)} genes, more than {most_genes}.", f"cells[{i}]")
        maps.append(GeneMap(cell.id if cell.id is not None else f"cell-{i}", mine, values))
    seen: set[str] = set()
    for i, one in enumerate(maps):
        if one.cell_id in seen:
            raise RequestError(
                422, f"two cells are named {one.cell_id!r}; give each a name of its own.", f"cells[{i}].id"
            )
        seen.add(one.cell_id)
    return maps
