"""What ``atlas`` and ``merge`` do, step by step: check, run, show."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cellscribe.cli.console import error_console, notes
from cellscribe.cli.guard import SOME_FAILED
from cellscribe.cli.progress import rates
from cellscribe.engine.atlas.clusters import run_per_cluster
from cellscribe.engine.atlas.job import AtlasJob, Running
from cellscribe.engine.atlas.manifest import Manifest
from cellscribe.engine.atlas.plan import Plan
from cellscribe.engine.atlas.run import Outcome, Watch, run_atlas
from cellscribe.engine.errors import UsageError
from cellscribe.engine.output.files import check_output
from cellscribe.engine.output.run import count
from cellscribe.engine.output.text import printable

if TYPE_CHECKING:
    from cellscribe.engine.atlas.progress import Snapshot

_LINE_SECONDS = 60.0


@dataclass(frozen=True)
class Asked:
    """One call of ``atlas``."""

    inputs: tuple[str, ...]
    output: str
    job: AtlasJob
    running: Running
    is_resumed: bool
    engine: Literal["local", "ray"]
    metrics: Path | None
    per_cluster: str | None
    cells_where: str | None
    is_quiet: bool


def run_job(asked: Asked) -> int:
    """Run an atlas, say how it went, and return the exit code."""
    if asked.metrics is not None:
        check_output(asked.metrics, None, (".prom",))
    if asked.cells_where is not None and asked.per_cluster is None:
        raise UsageError("--cells-where goes with --per-cluster; use --where to choose the cells of a run.")
    if asked.running.ray_address is not None and asked.engine != "ray":
        raise UsageError("--ray-address goes with --engine ray; add it, or leave the address out.")
    try:
        with _shown(asked) as watch:
            outcome = _run(asked, watch)
    except KeyboardInterrupt:
        _say(asked, f"what is finished is kept; the same command with --resume goes on in {asked.output}")
        raise
    return _finish(asked, outcome)


def _run(asked: Asked, watch: Watch) -> Outcome:
    if asked.per_cluster is not None:
        return run_per_cluster(
            asked.inputs, asked.output, asked.job, asked.running, asked.per_cluster, cells_where=asked.cells_where,
            is_resumed=asked.is_resumed, engine=asked.engine, watch=watch,
        )  # fmt: skip
    return run_atlas(
        asked.inputs, asked.output, asked.job, asked.running, is_resumed=asked.is_resumed, engine=asked.engine,
        watch=watch,
    )  # fmt: skip


def _finish(asked: Asked, outcome: Outcome) -> int:
    skipped = outcome.manifest.plan.skipped
    for one in skipped:
        _print(f"skipped {one.name}: {one.why}", "yellow")  # an error, which --quiet shows
    text = "; ".join(_told(outcome)) if outcome.had_work else "nothing was left to do"
    _say(asked, f"{text}; wrote {asked.output}", "green")
    lost = outcome.n_failed + (outcome.clusters or (0, 0))[1] + (outcome.cells.n_failed if outcome.cells else 0)
    return SOME_FAILED if lost or skipped else 0


def _told(outcome: Outcome) -> Iterator[str]:
    """Give what was made: of all cells, of clusters, of the cells that got a text each."""
    yield _cells_told(outcome, "embedded" if outcome.clusters else "")
    if outcome.clusters is not None:
        number, failed = outcome.clusters
        yield f"{count(number, 'cluster')} described" + (f", {failed:,} failed" if failed else "")
    if outcome.cells is not None:
        yield _cells_told(outcome.cells, "described one by one")


def _cells_told(outcome: Outcome, verb: str) -> str:
    snapshot, failed = outcome.snapshot, outcome.n_failed
    rate = rates(round(snapshot.cells_per_second * snapshot.elapsed), 0, snapshot.elapsed)
    parts = [" ".join((count(snapshot.cells, "cell"), verb)).rstrip(), count(snapshot.total_shards, "shard")]
    parts += [rate] if snapshot.cells_per_second else []
    parts += [f"{snapshot.shared:,} of them computed once with others"] if snapshot.shared else []
    parts += [f"{failed:,} failed"] if failed else []
    return ", ".join(one for one in parts if one)


@contextmanager
def _shown(asked: Asked) -> Iterator[Watch]:
    """Show a run on stderr while it goes on: a bar in a terminal, a few lines elsewhere."""

    def on_plan(manifest: Manifest, shards_done: int) -> None:
        plan = manifest.plan
        facts = [("task", _task_of(manifest)), ("inputs", _inputs_of(plan)), ("cells", f"{plan.n_cells:,}")]
        done = f"; {shards_done:,} done before" if shards_done else ""
        facts.append(("shards", f"{len(plan.shards):,} of {asked.job.shard_cells:,} cells at most{done}"))
        facts.append(("workers", f"{asked.running.workers} ({asked.engine})"))
        notes(facts, asked.is_quiet)

    console = error_console()
    if asked.is_quiet:
        yield Watch(on_plan=on_plan, metrics=asked.metrics)
        return
    if not console.is_terminal:
        yield Watch(on_plan=on_plan, on_snapshot=_Lines(asked), metrics=asked.metrics)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(style="green"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None, complete_style="green", finished_style="green"),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rates]}", style="dim"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("looking through the inputs", total=None, rates="")

        def on_file(done: int, total: int, name: str) -> None:
            bar.update(task, completed=done, total=total, rates=printable(name))

        def on_plan_too(manifest: Manifest, shards_done: int) -> None:
            bar.update(task, description=str(manifest.settings["task"]), completed=0)
            on_plan(manifest, shards_done)

        def on_snapshot(now: Snapshot) -> None:
            bar.update(task, completed=now.cells, total=now.total, rates=_rates(now))

        yield Watch(on_file, on_plan_too, on_snapshot, asked.metrics)


class _Lines:
    """Tells of a run now and then where there is no terminal, as in the log of a cluster."""

    def __init__(self, asked: Asked) -> None:
        self._asked, self._told = asked, time.monotonic()

    def __call__(self, now: Snapshot) -> None:
        """Write a line where the last one is long ago."""
        if time.monotonic() - self._told >= _LINE_SECONDS:
            self._told = time.monotonic()
            left = "" if now.seconds_left is None else f", {_duration(now.seconds_left)} left"
            _say(self._asked, f"{now.cells:,} of {now.total:,} cells, {_rates(now)}{left}")


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{max(1, minutes)} min"


def _rates(now: Snapshot) -> str:
    shares = " ".join(
        f"{name} {100 * share:.0f}%" for name, share in now.utilisation.items() if share and share >= 0.005
    )
    tokens = round(now.tokens_per_second)
    made = f"{now.cells_per_second:,.0f} cells/s" + (f" · {tokens:,} tokens/s" if tokens else "")
    return f"{made} · {shares}" if shares else made


def _task_of(manifest: Manifest) -> str:
    """Say what is done, in a run by clusters of either part."""
    task, column = str(manifest.settings["task"]), manifest.settings["per_cluster"]
    if manifest.settings["cells_where"] is not None:
        return f"{task} single cells"
    return task if column is None else f"{task}, then describe each {column}"


def _inputs_of(plan: Plan) -> str:
    good = len(plan.files) - len(plan.skipped)
    skipped = f"; {len(plan.skipped):,} skipped" if plan.skipped else ""
    return count(good, "file") + skipped


def _say(asked: Asked, text: str, style: Any = None) -> None:
    if not asked.is_quiet:
        _print(text, style)


def _print(text: str, style: Any = None) -> None:
    error_console().print(printable(text), style=style, markup=False, soft_wrap=True)
