"""All benchmarks for a machine without a GPU, one after the other: ``python benchmarks/suite.py [--only NAME ...]``.

Results go to benchmarks/results; what they hold already for this machine is not measured again unless ``--again`` is
given, so that a suite that was stopped goes on. Peers get environments of their own, bundles of a random
lingocell-1.1b are made, and all of it is kept in the user's cache: some 40 GB, and more than an hour the first time.
Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from peers.environments import default_folder

HERE = Path(__file__).resolve().parent
QUESTIONS = ("slots", "lengths", "memory", "capacity", "prompts", "admission", "encoding")


def stages(bundles: Path, again: list[str]) -> dict[str, list[list[str]]]:
    """Return the commands of every stage."""
    bench = [sys.executable, "-m", "cellscribe", "bench"]
    questions = ["--questions", ",".join(QUESTIONS)]
    return {
        "demo": [[*bench, "demo", "--quick", "-o", str(HERE / "results/bench_demo")]],
        "seed_way": [[sys.executable, "seed_way.py", str(bundles), *again]],
        "encoder": [[sys.executable, "encoder.py", str(bundles), *again]],
        "plain_llama": [[sys.executable, "plain_llama.py", *again]],
        "curves": [
            [*bench, str(bundles / name), *questions, "-o", str(HERE / f"results/bench_{name}")]
            for name in ("l11-int4", "l11-int8", "l11")
        ],
        "quality": [[sys.executable, "quality.py", "--backend", name] for name in ("cpu", "onnxruntime-cpu")],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", help="some of the stages")
    parser.add_argument("--bundles", type=Path, default=default_folder() / "bundles")
    parser.add_argument("--again", action="store_true", help="measure anew what is there already")
    asked = parser.parse_args()
    known = stages(asked.bundles, ["--again"] if asked.again else [])
    unknown = set(asked.only or ()) - set(known)
    if unknown:
        parser.error(f"no stage is called {min(unknown)}; choose from {', '.join(known)}.")
    asked.bundles.mkdir(parents=True, exist_ok=True)
    for name in asked.only or known:
        for command in known[name]:
            print(f"--- {name}", flush=True)
            subprocess.run(command, check=True, cwd=HERE)


if __name__ == "__main__":
    main()
