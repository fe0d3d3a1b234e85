"""The parameter structs of Python are those of the C headers: every field has its name, its place and its size."""

from __future__ import annotations

import ctypes
import importlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HEADERS = Path(__file__).resolve().parents[2] / "kernels/include/cellscribe"
STRUCTS = {
    name: header
    for header in sorted(HEADERS.glob("*.h"))
    for name in re.findall(r"^\} Cellscribe(\w+);", header.read_text(), re.MULTILINE)
}


def structure(name: str) -> type[ctypes.Structure]:
    module = importlib.import_module(f"cellscribe.kernels.parameters.{STRUCTS[name].stem}")
    found: type[ctypes.Structure] = getattr(module, name)
    return found


def test_they_lie_as_in_c(tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    lines, wanted = [], []
    for name in STRUCTS:
        kind = structure(name)
        lines.append(f'printf("{name} %zu\\n", sizeof(Cellscribe{name}));')
        wanted.append(f"{name} {ctypes.sizeof(kind)}")
        for field, *_ in kind._fields_:
            at = getattr(kind, field)
            lines.append(
                f'printf("{name}.{field} %zu %zu\\n", offsetof(Cellscribe{name}, {field}), '
                f"sizeof(((Cellscribe{name}*)0)->{field}));"
            )
            wanted.append(f"{name}.{field} {at.offset} {at.size}")
    source, program = tmp_path / "layout.c", tmp_path / "layout"
    includes = "".join(f'#include "cellscribe/{header.name}"\n' for header in sorted(set(STRUCTS.values())))
    body = "\n".join(lines)
    source.write_text(f"#include <stddef.h>\n#include <stdio.h>\n{includes}int main(void) {{\n{body}\nreturn 0;\n}}\n")
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{HEADERS.parent}"]
    subprocess.run([compiler, *flags, str(source), "-o", str(program)], check=True)
    assert subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout.splitlines() == wanted
