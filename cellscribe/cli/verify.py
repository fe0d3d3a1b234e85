"""``cellscribe verify``: whether a bundle is whole and still says what it said at export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cellscribe.cli import options
from cellscribe.cli.guard import guarded

if TYPE_CHECKING:
    from cellscribe.engine.bundle import Bundle

_SLOTS = 32  # of a plan that is built here: the most that are timed


@guarded
def verify(
    bundle: options.BundleArgument,
    backend: options.BackendOption = options.BackendChoice.auto,
    plans: options.PlansOption = None,
    cells: Annotated[
        Path | None,
        typer.Option(
            "--cells", metavar="CELLS", help="Cells to time, and to compare with ONNX Runtime.", show_default=False
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report", metavar="OUT.json", help="Also write all of it to a file to send.", show_default=False
        ),
    ] = None,
    threads: options.ThreadsOption = None,
) -> int:
    """Check every hash of a bundle and run its graphs on the reference cells it carries.

    A GPU backend is also compared with ONNX Runtime on the CPU, and timed; so is the native CPU backend with
    --backend cpu, --cells or --report. For tensorrt, a plan with 32 slots is built first where none fits.
    """
    import json

    from cellscribe.cli.console import output_console
    from cellscribe.cli.terminal import facts_table
    from cellscribe.engine.bundle import open_bundle
    from cellscribe.engine.errors import BundleError
    from cellscribe.engine.output.atomic import replacing
    from cellscribe.engine.output.files import check_output
    from cellscribe.engine.verify import VerifyReport, verify_bundle
    from cellscribe.engine.verify_instruct import InstructVerifyReport, verify_instruct_bundle
    from cellscribe.engine.verify_match import MatchVerifyReport, verify_match_bundle
    from cellscribe.engine.verify_text import TextVerifyReport, verify_text_bundle

    if report is not None:
        check_output(report, cells, (".json",))
    console = output_console()
    opened, is_timed = open_bundle(options.bundle_folder(bundle)), report is not None
    found: VerifyReport | TextVerifyReport | MatchVerifyReport | InstructVerifyReport
    if backend is options.BackendChoice.tensorrt:
        _build_missing_plan(opened, plans)
    if opened.manifest.ranks is not None:
        found = verify_match_bundle(opened, backend.value, threads, plans)
    elif opened.manifest.instruct is not None:
        found = verify_instruct_bundle(opened, backend.value, threads, plans)
    elif opened.manifest.sentences is not None:
        found = verify_text_bundle(opened, backend.value, threads, plans)
    else:
        found = verify_bundle(opened, threads, backend=backend.value, cells=cells, plans=plans, is_timed=is_timed)
    if found.timings:
        console.print(facts_table(found.facts))
        console.print()
    for line in found.lines():
        console.print(line, markup=False, soft_wrap=True)
    if report is not None:
        with replacing(report) as path:
            path.write_text(json.dumps(found.as_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        console.print(f"wrote {report}", markup=False, soft_wrap=True)
    return BundleError.exit_code if found.failures else 0


def _build_missing_plan(bundle: Bundle, plans: Path | None) -> None:
    """Build a plan for this GPU where none fits; where that cannot help, opening the backend says what would."""
    from cellscribe.cli.console import error_console
    from cellscribe.cli.progress import file_bars
    from cellscribe.engine.backends.choose import check_plans, plan_problem, torch_problem
    from cellscribe.engine.gpu import has_gpu

    check_plans(plans)
    console = error_console()
    problem = plan_problem(bundle, plans=plans) if has_gpu() and not torch_problem() else ""
    if not problem:
        return
    try:
        from cellscribe.export.tensorrt import build_plans
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cellscribe"):
            raise
        console.print(
            f"no plan was built, as building needs {error.name}; install it with: pip install 'cellscribe[export]'.",
            style="dim",
            markup=False,
            soft_wrap=True,
        )
        return
    console.print(
        f"building a plan with {_SLOTS} slots for this GPU: {problem}", style="dim", markup=False, soft_wrap=True
    )
    with file_bars() as report:
        built = build_plans(bundle, "this", slots=_SLOTS, output=plans, progress=report)
    for line in built.lines():
        console.print(line, markup=False, soft_wrap=True)
