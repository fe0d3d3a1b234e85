"""``cellscribe bench``: how fast a bundle runs here, and how near that is to what the machine can do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded

if TYPE_CHECKING:
    from cellscribe.engine.bench.results import Results
    from cellscribe.engine.bench.settings import Settings

_FOLDER = Path("cellscribe-bench")


@guarded
def bench(
    bundle: options.BundleArgument = "demo",
    questions: Annotated[
        str | None,
        typer.Option("--questions", metavar="A,B", help="Only these, as in slots,memory.", show_default=False),
    ] = None,
    slots: Annotated[
        str | None, typer.Option("--slots", metavar="1,2,4", help="Numbers of slots to time.", show_default=False)
    ] = None,
    rounds: Annotated[
        int | None, typer.Option("--rounds", min=1, help="Least rounds of each comparison.", show_default=False)
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", min=0, help="Least seconds of each comparison.", show_default=False),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few sizes and rounds: a minute with the demo.")] = False,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for bench.json, bench.md and bench.png.")
    ] = _FOLDER,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the bench.json that is there.")] = False,
    cells: Annotated[
        Path | None,
        typer.Option("--cells", metavar="CELLS.h5ad", help="Your cells instead of the packaged.", show_default=False),
    ] = None,
    backend: options.BackendOption = options.BackendChoice.auto,
    plans: options.PlansOption = None,
    threads: options.ThreadsOption = None,
    quiet: options.QuietOption = False,
) -> int:
    """Time a bundle on real cells, and compare with what this machine's memory and arithmetic allow.

    Every time is a median over interleaved rounds, with quartiles; the roofline is measured in the same run.
    """
    from cellscribe.cli.bench_bar import watching
    from cellscribe.cli.bench_table import show
    from cellscribe.cli.console import error_console
    from cellscribe.cli.terminal import heading
    from cellscribe.engine.bench.hardware import Hardware
    from cellscribe.engine.bench.questions import questions_named
    from cellscribe.engine.bench.results import read_results, results_folder
    from cellscribe.engine.bench.run import ask
    from cellscribe.engine.bench.setup import open_contender, results_of
    from cellscribe.engine.bundle import open_bundle

    settings, names = _settings(quick, slots, rounds, seconds), _listed(questions, "questions")
    questions_named(names)
    if resume:
        read_results(output)  # before a folder is made
    folder, hardware = results_folder(output, resumes=resume), Hardware.here()
    opened = open_bundle(options.bundle_folder(bundle))
    chosen = questions_named(names, opened.describes)
    one = open_contender(opened, backend.value, threads=threads, plans=plans, cells=cells, hardware=hardware)
    command = _command(opened.name, questions, slots, rounds, seconds, quick, threads, backend.value, cells)
    results = results_of(folder, [one], settings, command, hardware, threads=threads)
    if resume:
        results.resume()
    if not quiet:
        error_console().print(heading(f"timing {opened.name} on {one.backend.device}"))
    try:
        with watching(quiet, len(chosen)) as watcher:
            ask(chosen, [one], settings, results, watcher)
    except KeyboardInterrupt:
        _say_kept(results)
        raise
    finally:
        if results.rows:
            _write(results, quiet)
    show(results)
    return 0


def _settings(is_quick: bool, slots: str | None, rounds: int | None, seconds: float | None) -> Settings:
    from cellscribe.engine.bench.settings import Settings

    settings = Settings.quick() if is_quick else Settings()
    effort = settings.effort
    if rounds is not None:
        effort = replace(effort, min_rounds=rounds, max_rounds=max(rounds, effort.max_rounds))
    if seconds is not None:
        effort = replace(effort, seconds=seconds)
    settings = replace(settings, effort=effort)
    return settings if slots is None else replace(settings, slots=_numbers(slots))


def _numbers(text: str) -> tuple[int, ...]:
    """Read a list such as 1,2,4; each number once, rising."""
    from cellscribe.engine.errors import UsageError

    parts = _listed(text, "slots")
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"--slots is {text!r}; give whole numbers with commas between, as in 1,8,32.")
    return tuple(sorted({int(part) for part in parts}))


def _listed(text: str | None, name: str) -> tuple[str, ...]:
    from cellscribe.engine.errors import UsageError

    if text is None:
        return ()
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if not parts:
        raise UsageError(f"the list of {name} is empty; give at least one, or leave --{name} out.")
    return parts


def _command(
    name: str,
    questions: str | None,
    slots: str | None,
    rounds: int | None,
    seconds: float | None,
    is_quick: bool,
    threads: int | None,
    backend: str,
    cells: Path | None,
) -> str:
    """Return the command as others can repeat it, without paths of this machine."""
    given = {
        "--questions": questions,
        "--slots": slots,
        "--rounds": rounds,
        "--seconds": seconds,
        "--threads": threads,
        "--backend": None if backend == "auto" else backend,
        "--cells": None if cells is None else cells.name,
    }
    parts = [f"{option} {value}" for option, value in given.items() if value is not None]
    return " ".join(["cellscribe bench", name, *parts, *(["--quick"] if is_quick else [])])


def _write(results: Results, is_quiet: bool) -> None:
    """Write the page and the plot beside the JSON file; without matplotlib there is no plot."""
    from cellscribe.cli.console import error_console
    from cellscribe.engine.bench.plot import write_plot
    from cellscribe.engine.bench.report import write_markdown
    from cellscribe.engine.bench.results import JSON_NAME, MARKDOWN_NAME, PLOT_NAME
    from cellscribe.engine.errors import BackendError

    write_markdown(results)
    written, why = [JSON_NAME, MARKDOWN_NAME], ""
    if any(row.question == "slots" for row in results.rows):
        try:
            write_plot(results.judged(), results.folder / PLOT_NAME, results.head["bundle"]["name"])
            written.append(PLOT_NAME)
        except BackendError as error:
            why = f"; {error}"
    if not is_quiet:
        error_console().print(
            f"wrote {', '.join(written)} into {results.folder}{why}", style="dim", markup=False, soft_wrap=True
        )


def _say_kept(results: Results) -> None:
    from cellscribe.cli.console import error_console
    from cellscribe.engine.output.run import count

    if results.rows:
        said = f"kept {count(len(results.rows), 'row')}; the same command with --resume goes on."
    else:
        said = "nothing was kept, as no comparison was finished; the same command begins anew."
    error_console().print(said, markup=False, soft_wrap=True)
