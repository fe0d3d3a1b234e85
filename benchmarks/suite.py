"""All benchmarks for a machine without a GPU, one after the other: ``python benchmarks/suite.py [--only NAME ...]``.

Results go to benchmarks/results; what they hold already for a machine like this one is said and not measured again
unless ``--again`` is given, so that a suite that was stopped goes on. Peers get environments of their own, bundles of
a random lingocell-1.1b are made, and all of it is kept in the user's cache: some 40 GB, and more than an hour the
first time. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from peers.environments import default_folder
from seed_way import BUNDLES, bundle

HERE = Path(__file__).resolve().parent
QUESTIONS = ("slots", "lengths", "memory", "capacity", "prompts", "admission", "encoding")
WITHOUT_BUNDLES = {"c2s", "demo", "cells", "plain_llama", "preprocessing", "quality"}


def stages(bundles: Path, again: list[str]) -> dict[str, list[list[str]]]:
    """Return the commands of every stage."""
    made = {name: bundles / name for name in ("l11-int4", "l11-int8", "l11")}
    int4 = str(made["l11-int4"])
    return {
        "demo": [_bench("demo", "bench_demo", "--quick")],
        "cells": [_bench("demo", "bench_cells", "--questions", "cells,reading")],
        "seed_way": [[sys.executable, "seed_way.py", str(bundles), *again]],
        "encoder": [[sys.executable, "encoder.py", str(bundles), *again]],
        "plain_llama": [[sys.executable, "plain_llama.py", *again]],
        "c2s": [[sys.executable, "c2s.py", *again]],
        "shared_prompt": [[sys.executable, "shared_prompt.py", int4]],
        "curves": [
            _bench(str(path), f"bench_{name}", "--questions", ",".join(QUESTIONS)) for name, path in made.items()
        ],
        "preprocessing": [[sys.executable, "preprocessing.py"]],
        "quality": [[sys.executable, "quality.py", "--backend", name] for name in ("cpu", "onnxruntime-cpu")],
    }


def _bench(bundle: str, name: str, *options: str) -> list[str]:
    """``cellscribe bench`` into a folder of the results; it goes on with what is there."""
    folder = HERE / "results" / name
    resume = ["--resume"] if (folder / "bench.json").is_file() else []
    return [sys.executable, "-m", "cellscribe", "bench", bundle, *options, "-o", str(folder), *resume]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="some of the stages")
    parser.add_argument("--bundles", type=Path, default=default_folder() / "bundles")
    parser.add_argument("--again", action="store_true", help="measure anew what is there already")
    asked = parser.parse_args()
    bundles = asked.bundles.expanduser().resolve()  # the stages run elsewhere
    known = stages(bundles, ["--again"] if asked.again else [])
    unknown = set(asked.only or ()) - set(known)
    if unknown:
        parser.error(f"no stage is called {min(unknown)}; choose from {', '.join(known)}.")
    bundles.mkdir(parents=True, exist_ok=True)
    chosen = asked.only or list(known)
    if not set(chosen) <= WITHOUT_BUNDLES:
        for precision, name in BUNDLES.items():
            bundle(bundles / name, precision)
    for name in chosen:
        for command in known[name]:
            print(f"--- {name}", flush=True)
            subprocess.run(command, check=True, cwd=HERE)


if __name__ == "__main__":
    main()
