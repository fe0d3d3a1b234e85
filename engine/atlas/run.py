"""A run from its beginning to its end, and from wherever it was cut off."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from cellscribe.engine.atlas.folder import PROGRESS, AtlasFolder
from cellscribe.engine.atlas.inputs import find_inputs
from cellscribe.engine.atlas.job import AtlasJob, Running
from cellscribe.engine.atlas.manifest import Manifest, ShardRecord, check_same
from cellscribe.engine.atlas.plan import FileEntry, OnFile, look_through
from cellscribe.engine.atlas.pool import Work, run_here, run_in_processes
from cellscribe.engine.atlas.progress import Progress, Snapshot, progress_text, prometheus
from cellscribe.engine.atlas.report import write_atlas_report
from cellscribe.engine.atlas.tasks import open_atlas_bundle
from cellscribe.engine.errors import OutputError, UsageError
from cellscribe.engine.output.atomic import replacing
from cellscribe.engine.versions import versions

OnSnapshot = Callable[[Snapshot], None]
Engine = Literal["local", "ray"]
_WRITE_SECONDS = 2.0
_SHOW_SECONDS = 0.25


@dataclass(frozen=True)
class Outcome:
    """What became of a run: where it stands, its manifest, and whether anything was left to do.

    Of a run by clusters it is what became of the vectors; `clusters` says how many were described, now or before, and
    how many of them failed, and `cells` what became of the cells that got a text each.
    """

    snapshot: Snapshot
    manifest: Manifest
    records: tuple[ShardRecord, ...]
    had_work: bool = True
    clusters: tuple[int, int] | None = None
    cells: Outcome | None = None

    @property
    def n_failed(self) -> int:
        """Cells that failed."""
        return sum(one.n_failed for one in self.records)


@dataclass(frozen=True)
class Watch:
    """Who is told of a run while it goes on.

    `on_file` hears of inputs that are looked through, `on_plan` of what is to be done, `on_snapshot` several times a
    second where the run is; `metrics` is a file of Prometheus text.
    """

    on_file: OnFile | None = None
    on_plan: Callable[[Manifest, int], None] | None = None  # and the shards that are there
    on_snapshot: OnSnapshot | None = None
    metrics: Path | None = None


def run_atlas(
    inputs: Sequence[str],
    out: Path | str,
    job: AtlasJob,
    running: Running | None = None,
    *,
    is_resumed: bool = False,
    engine: Engine = "local",
    watch: Watch | None = None,
    known: Sequence[FileEntry] = (),
) -> Outcome:
    """Run a job over an atlas, or what is left of it.

    Parameters
    ----------
    inputs
        Files, folders and patterns (:func:`cellscribe.engine.atlas.inputs.find_inputs`).
    out
        Folder of the results, or its URL.
    is_resumed
        Whether a run that was begun there is gone on with.
    engine
        ``local`` (this process, or several) or ``ray`` (a cluster).
    known
        Inputs that were looked at before (:func:`cellscribe.engine.atlas.plan.look_through`).

    Raises
    ------
    UsageError
        When `out` holds a run and `is_resumed` is false, or one of another bundle, job or input.
    InputError
        When the inputs cannot be read, now or any more.
    OutputError
        When results cannot be written, as on a full disk; what is written stays, and the run can be resumed.
    BackendError
        When the device fails, or workers die again and again.
    """
    running, watch = running or Running(), watch or Watch()
    folder = AtlasFolder(out)
    if folder.is_begun and not is_resumed:
        raise UsageError(f"{out} holds a run already; add --resume to go on with it, or choose another folder.")
    files = find_inputs(inputs)
    bundle = open_atlas_bundle(job)
    old = folder.read_manifest()[0] if folder.is_begun else None
    known = known if old is None else (*old.files, *known)
    plan = look_through(files, job, is_strict=running.is_strict, on_file=watch.on_file, known=known)
    named = {"name": bundle.name, "hash": bundle.hash}
    manifest = Manifest(job.settings(), named, plan.files, {k: str(v) for k, v in versions().items()})
    folder.make()
    with folder.locked():
        done: dict[int, ShardRecord] = {}
        if old is not None:
            check_same(old, manifest)
            folder.clean()
            done = folder.finished(manifest)
        todo = [one for one in plan.shards if one.number not in done]
        if watch.on_plan is not None:
            watch.on_plan(manifest, len(done))
        if old is not None and old.state == "finished" and not todo:  # whose figures stay as they are
            progress = Progress(plan.n_cells, len(plan.shards), done, state="finished")
            return Outcome(progress.now(), old, tuple(done.values()), had_work=False)
        folder.write_manifest(manifest, done.values())
        progress = Progress(plan.n_cells, len(plan.shards), done, before=folder.read_progress() if done else None)
        if todo:
            with _kept(folder, manifest, progress, watch):
                _run(Work(job, running, plan.files, folder, manifest.run), todo, engine, folder, progress)
        progress.state = "finished"
        final = replace(manifest, state="finished")
        records = tuple(progress.records[number] for number in sorted(progress.records))
        folder.write_manifest(final, records)
        snapshot = progress.now()
        _write(snapshot, folder, watch)
        write_atlas_report(folder, final, records, progress)
    return Outcome(snapshot, final, records, bool(todo))


def _run(work: Work, todo: Sequence[Any], engine: Engine, folder: AtlasFolder, progress: Progress) -> None:
    def on_record(record: ShardRecord) -> None:
        folder.remember(record)
        progress.add(record)

    if engine == "ray":
        from cellscribe.engine.atlas.on_ray import run_on_ray

        run_on_ray(work, todo, on_record, progress.tell)
    elif work.running.workers > 1:
        run_in_processes(work, todo, on_record, progress.tell)
    else:
        run_here(work, todo, on_record, progress.tell)


@contextmanager
def _kept(folder: AtlasFolder, manifest: Manifest, progress: Progress, watch: Watch) -> Iterator[None]:
    """Tell of a run while it goes on, and leave its files in order however it ends."""
    is_over = threading.Event()

    def tell() -> None:
        waited = _WRITE_SECONDS
        while not is_over.wait(_SHOW_SECONDS):
            snapshot = progress.now()
            if watch.on_snapshot is not None:
                watch.on_snapshot(snapshot)
            waited += _SHOW_SECONDS
            if waited >= _WRITE_SECONDS:
                waited = 0.0
                with contextlib.suppress(OutputError):
                    _write(snapshot, folder, watch)

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield
    except BaseException as error:
        progress.state = "interrupted" if isinstance(error, KeyboardInterrupt) else "stopped"
        is_over.set()
        thread.join()
        folder.clean()
        with contextlib.suppress(OutputError):
            folder.write_manifest(replace(manifest, state=progress.state), progress.records.values())
            _write(progress.now(), folder, watch)
        raise
    is_over.set()
    thread.join()


def _write(snapshot: Snapshot, folder: AtlasFolder, watch: Watch) -> None:
    folder.put(PROGRESS, progress_text(snapshot))
    if watch.metrics is not None:
        with replacing(watch.metrics) as part:
            part.write_text(prometheus(snapshot), encoding="utf-8")
