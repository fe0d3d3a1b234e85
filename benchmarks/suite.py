"""The benchmarks as one command: what needs only a bundle, with the options of ``cellscribe bench``."""

from __future__ import annotations

import sys

from cellscribe.cli.app import main

if __name__ == "__main__":
    main(["bench", *sys.argv[1:]])
