"""``cellscribe verify``: whether a bundle is whole and still says what it said at export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cellscribe.cli.guard import guarded


@guarded
def verify(bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle folder.")]) -> int:
    """Check every hash of a bundle and run its graphs on the reference cells it carries."""
    from cellscribe.cli.console import output_console
    from cellscribe.engine.errors import BundleError
    from cellscribe.engine.verify import verify_bundle

    console = output_console()
    report = verify_bundle(str(bundle))
    for line in report.lines():
        console.print(line, markup=False, soft_wrap=True)
    return BundleError.exit_code if report.failures else 0
