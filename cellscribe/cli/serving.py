"""What ``cellscribe serve`` does."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from cellscribe.cli.console import error_console
from cellscribe.engine.errors import UsageError

KEY_VARIABLE = "CELLSCRIBE_API_KEY"


@dataclass(frozen=True)
class ServeJob:
    """The options of ``cellscribe serve``."""

    bundle: str
    host: str
    port: int
    slots: int
    cells: Path | None
    max_queue: int
    client_share: float | None
    max_cells: int
    max_upload_bytes: int
    max_disk_bytes: int
    deadline_s: float
    grace_s: float
    seed: int
    backend: str
    plans: Path | None
    threads: int | None
    genes: Path | None
    is_quiet: bool


def api_keys(text: str | None) -> tuple[str, ...]:
    """Return the keys of the environment; UsageError for a variable that is set and holds none.

    Whoever sets it wants a lock on the door: an empty one would leave it open.
    """
    if text is None:
        return ()
    keys = tuple(key.strip() for key in text.split(",") if key.strip())
    if not keys:
        raise UsageError(f"{KEY_VARIABLE} is set and empty; give it a key, or unset it.")
    return keys


def serve_bundle(job: ServeJob) -> int:
    """Load the bundle and answer until a signal comes."""
    missing = [name for name in ("fastapi", "uvicorn", "prometheus_client") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"{missing[0]} is not installed; run `pip install 'cellscribe[serve]'`.")
    keys = api_keys(os.environ.get(KEY_VARIABLE))

    from cellscribe.engine.cells.hvg import read_gene_list
    from cellscribe.engine.model import load
    from cellscribe.engine.packaged import packaged_cells
    from cellscribe.engine.service.addresses import is_loopback
    from cellscribe.engine.service.choosing import service_of
    from cellscribe.engine.service.limits import ServiceLimits, share_of
    from cellscribe.engine.service.server import serve
    from cellscribe.engine.service.service import ServiceSettings

    console = error_console()

    def say(text: str) -> None:
        if not job.is_quiet:
            console.print(text, markup=False, soft_wrap=True, highlight=False)

    limits = ServiceLimits(
        cells=job.max_cells,
        queue_cells=job.max_queue,
        client_share=share_of(job.client_share, keys, is_loopback(job.host)),
        upload_bytes=job.max_upload_bytes,
        disk_bytes=job.max_disk_bytes,
        deadline_s=job.deadline_s,
    )
    hvg = None if job.genes is None else read_gene_list(job.genes)
    model = load(job.bundle, threads=job.threads, seed=job.seed, hvg=hvg, backend=job.backend, plans=job.plans)
    settings = ServiceSettings(job.slots, job.seed, hvg, keys, limits)
    service = service_of(model, job.cells or packaged_cells(), settings)
    if not keys and not is_loopback(job.host):
        say(f"{job.host} can be reached from other machines and asks for no key; set {KEY_VARIABLE} to ask for one.")

    def tell(address: str) -> None:
        say(f"{model.bundle.name} on {model.device}; {service.num_slots} slots.")
        say(f"page and API: {address} (Ctrl-C finishes what runs, and ends)")

    serve(service, job.host, job.port, grace_s=job.grace_s, on_listening=tell)
    say("ended.")
    return 0
