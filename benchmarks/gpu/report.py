"""The result file as tables a person reads."""

from __future__ import annotations

from pathlib import Path

from gpu.results import Row, figure, told

_HIDDEN = {"bytes", "flops", "step_bytes", "step_flops", "input_sets", "mean_context_of_a_text"}


def write_report(whole: Row, path: Path) -> None:
    """Write every part as a table."""
    lines = [f"# {whole.get('name', '')}: {whole.get('kind', '')}", ""]
    if whole.get("is_emulated"):
        lines += ["**Emulated on the CPU at tiny sizes. No figure here says anything about a GPU.**", ""]
    for name, part in whole["parts"].items():
        lines += [f"## {name}: {part['status']}{', ' + part['why'] if part.get('why') else ''}", ""]
        lines += facts(part)
        lines += table(part.get("rows", []))
    temporary = path.with_name(f".{path.name}")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(path)


def facts(part: Row) -> list[str]:
    """Return what a part says besides its rows."""
    shown = {k: v for k, v in part.items() if k not in ("status", "why", "rows")}
    lines = [f"- {name}: {told(value)}" for name, value in shown.items()]
    return [*lines, ""] if lines else []


def table(rows: list[Row]) -> list[str]:
    """Return rows as Markdown; rows with other columns begin another table."""
    lines: list[str] = []
    before: tuple[str, ...] = ()
    for row in rows:
        shown = {k: v for k, v in row.items() if k not in _HIDDEN and not isinstance(v, dict | list)}
        columns = tuple(shown)
        if columns != before:
            lines += ["", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
            before = columns
        lines.append(f"| {' | '.join(figure(value).replace('|', '/') for value in shown.values())} |")
    return [*lines, ""]
