"""What the suite runs, with which settings: those of the published results, one stage for each of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from peers.langcell_cells import CELLS_FILE
from results_folder import shared_data
from seed_way import BUNDLES, bundle_command

HERE = Path(__file__).resolve().parent
Command = tuple[str, ...]

# Options of `cellscribe bench`: the bundle (the packaged demo, or a random lingocell-1.1b of a precision) and the rest.
CURVES = ("--questions", "slots,capacity,memory,lengths", "--rounds", "3", "--seconds", "2.0")
BENCHES: Mapping[str, tuple[str, Command]] = {
    "demo": ("demo", ("--quick",)),
    "cells": ("demo", ("--questions", "cells,reading", "--rounds", "3")),
    "l11-int4": ("int4", CURVES),
    "l11-int8": ("int8", CURVES),
    "admission": ("int4", ("--questions", "admission", "--rounds", "3")),
}
# Options of the scripts that compare with other engines.
SEED_WAY: Command = ()
ENCODER: Command = ()
PLAIN_LLAMA: Command = ("--bits", "4", "8", "32", "--rounds", "3")
C2S: Command = ("--bits", "8", "32", "4", "--cells", "64", "--rounds", "2")
LANGCELL: Command = ("--cells", "64", "--many-cells", "8", "--rounds", "2")
SHARED_PROMPT: Command = ("--cells", "8", "--rounds", "5")
QUALITY_BACKENDS = ("onnxruntime-cpu", "cpu")
PREPROCESSING: tuple[str, Command] = ("scp1884.h5ad", ("--cells", "20000", "--rounds", "7"))
RANKS: tuple[str, Command] = ("zheng68k.h5ad", ("--cells", "20000"))
SENTENCES: tuple[str, Command] = ("zheng68k.h5ad", ("--cells", "20000"))
READING: tuple[str, Command] = ("zheng68k.h5ad", ("--cells", "20000"))
ATLAS_FILE = "zheng68k.h5ad"


@dataclass(frozen=True)
class Stage:
    """Some commands and what they leave in the folder of results.

    `makes` are files, and folders of `cellscribe bench`; `inputs` are files that it cannot do without and that nothing
    makes; `prepares` makes what is missing of the paths it names.
    """

    commands: tuple[Command, ...]
    makes: tuple[str, ...]
    inputs: tuple[Path, ...] = ()
    prepares: tuple[tuple[Path, Command], ...] = ()


def stages(results: Path, bundles: Path) -> dict[str, Stage]:
    """Return the stages by name; results go to one folder, and bundles of random weights are kept in the other."""
    made = tuple(
        (bundles / name, tuple(bundle_command(bundles / name, precision))) for precision, name in BUNDLES.items()
    )
    paths = {precision: str(bundles / name) for precision, name in BUNDLES.items()}
    benches = {
        name: Stage(
            (_python("-m", "cellscribe", "bench", paths.get(of, of), *options, "-o", str(results / f"bench_{name}")),),
            (f"bench_{name}",),
            prepares=tuple(one for one in made if str(one[0]) == paths.get(of)),
        )
        for name, (of, options) in BENCHES.items()
    }
    return {
        "demo": benches["demo"],
        "cells": benches["cells"],
        "flat": Stage((_python("flat.py"),), ("flat.json",)),
        "guesses": Stage((_python("guesses.py"),), ("guesses.json",)),
        "quality": Stage(
            tuple(_python("quality.py", "--backend", name) for name in QUALITY_BACKENDS),
            ("quality.json", "quality.md"),
        ),
        "preprocessing": _of_file("preprocessing", *PREPROCESSING),
        "sentences": _of_file("sentences", *SENTENCES),
        "seed_way": Stage((_python("seed_way.py", str(bundles), *SEED_WAY),), _compared("seed_way"), prepares=made),
        "ranks": _of_file("ranks", *RANKS),
        "reading": _of_file("reading", *READING),
        "atlas": Stage(
            (_python("atlas.py", str(bundles / "atlas")),), ("atlas.json",), inputs=(shared_data() / ATLAS_FILE,)
        ),
        "langcell": Stage(
            (_python("langcell.py", str(bundles), *LANGCELL),),
            (*_compared("langcell"), *_compared("langcell_embed")),
            inputs=(shared_data() / CELLS_FILE,),
        ),
        "encoder": Stage((_python("encoder.py", str(bundles), *ENCODER),), _compared("encoder"), prepares=made),
        "plain_llama": Stage((_python("plain_llama.py", *PLAIN_LLAMA),), _compared("plain_llama")),
        "c2s": Stage((_python("c2s.py", *C2S),), _compared("c2s")),
        "shared_prompt": Stage(
            tuple(
                _python("shared_prompt.py", str(bundles), "--precision", one, *SHARED_PROMPT)
                for one in ("int4", "fp32")
            ),
            ("shared_prompt.json",),
            prepares=made,
        ),
        "curves_int4": benches["l11-int4"],
        "curves_int8": benches["l11-int8"],
        "admission": benches["admission"],
    }


def _python(*arguments: str) -> Command:
    return (sys.executable, *arguments)


def _compared(name: str) -> tuple[str, ...]:
    return f"{name}.json", f"{name}.md"


def _of_file(name: str, file: str, options: Command) -> Stage:
    """A script about cells that are not part of the repository."""
    path = shared_data() / file
    return Stage((_python(f"{name}.py", str(path), *options),), (f"{name}.json",), inputs=(path,))
