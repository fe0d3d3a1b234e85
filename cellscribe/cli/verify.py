"""``cellscribe verify``: whether a bundle is whole and still says what it said at export."""

from __future__ import annotations

from cellscribe.cli import options
from cellscribe.cli.guard import guarded


@guarded
def verify(bundle: options.BundleArgument) -> int:
    """Check every hash of a bundle and run its graphs on the reference cells it carries."""
    from cellscribe.cli.console import output_console
    from cellscribe.engine.errors import BundleError
    from cellscribe.engine.verify import verify_bundle

    console = output_console()
    report = verify_bundle(str(options.bundle_folder(bundle)))
    for line in report.lines():
        console.print(line, markup=False, soft_wrap=True)
    return BundleError.exit_code if report.failures else 0
