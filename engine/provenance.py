"""What a result depends on, as it is kept beside it: bundle, device, cells, versions."""

from __future__ import annotations

from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import CellSource
from cellscribe.engine.versions import versions


def settings_of(bundle: Bundle, device: str, source: CellSource | None, **more: object) -> dict[str, object]:
    """Return what a result depends on.

    Parameters
    ----------
    device
        Device and provider in words.
    source
        The cells; None where none were read.
    more
        Further entries, or other ones than ours.
    """
    about = {} if source is None else {
        "input": source.path.name if source.path else "AnnData in memory",
        "fingerprint": source.fingerprint(),
        "values": source.value_note,
    }  # fmt: skip
    return {
        "bundle": bundle.name,
        "bundle_hash": bundle.hash,
        "precision": bundle.manifest.precision,
        "backend": device,
        "sampling": "greedy",
        "seed": 0,
        **about,
        "versions": versions(),
        **more,
    }
