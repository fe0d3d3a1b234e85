"""Files of labels: lists, tables, JSON and ontologies."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from cellscribe.engine.errors import InputError
from cellscribe.engine.labels import TERM, Labels, checked_labels

Row = tuple[str, str, str]  # name, id, definition

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


def read_labels(path: Path) -> Labels:
    """Read labels.

    Parameters
    ----------
    path
        ``.txt``, ``.tsv``: a label a line, after a tab its Cell Ontology id and after another one its definition, both
        on request; lines that begin with # are left out. ``.json``: a list of labels, or a mapping of labels to ids
        (null for none) or to ``{"id": ..., "definition": ...}``. ``.obo``: the terms of the Cell Ontology in it that
        are not obsolete.

    Raises
    ------
    InputError
        When the file cannot be read, holds no label, one twice, or an id that is none.
    """
    if path.suffix not in _READERS:
        raise InputError(f"{path} has no ending that is understood; labels are read from {', '.join(_READERS)}.")
    try:
        rows = _READERS[path.suffix](path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the name.") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as labels ({error}); give one a line.") from error
    if not rows:
        raise InputError(f"{path} holds no labels; give one a line.")
    return checked_labels(rows, str(path), InputError)


def _of_lines(text: str) -> list[Row]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    parts = [[*map(str.strip, line.split("\t", 2)), "", ""] for line in lines]
    return [(name, term, told) for name, term, told, *_ in parts]


def _of_json(text: str) -> list[Row]:
    raw = json.loads(text)
    if isinstance(raw, list):
        raw = dict.fromkeys(raw) if len({str(one) for one in raw}) == len(raw) else _twice(raw)
    if not isinstance(raw, dict) or not all(isinstance(name, str) and name.strip() for name in raw):
        raise ValueError("it is neither a list nor a mapping of labels")
    return [(name.strip(), *_of_value(value)) for name, value in raw.items()]


def _of_value(value: object) -> tuple[str, str]:
    """Id and definition of a label in JSON."""
    if isinstance(value, dict):
        unknown = sorted(set(value) - {"id", "definition"})
        if unknown:
            raise ValueError(f"a label has an entry {unknown[0]!r}, where id and definition are known")
        term, told = value.get("id"), value.get("definition")
    else:
        term, told = value, None
    if not all(one is None or isinstance(one, str) for one in (term, told)):
        raise ValueError("an id is no text")
    return (term or "").strip(), (told or "").strip()


def _twice(raw: list[object]) -> dict[str, None]:
    double = next(one for i, one in enumerate(raw) if one in raw[:i])
    raise ValueError(f"{double!r} is there twice")


def _of_obo(text: str) -> list[Row]:
    """Name, id and definition of an ontology's cell types (OBO 1.4), without imported and obsolete terms."""
    rows = []
    for stanza in text.split("\n[")[1:]:
        kind, _, body = stanza.partition("]")
        pairs = [line.partition(": ") for line in body.splitlines()]
        term = {name: value for name, _, value in reversed(pairs) if name in ("id", "name", "def", "is_obsolete")}
        if kind != "Term" or not TERM.fullmatch(term.get("id", "")) or term.get("is_obsolete") == "true":
            continue
        quoted = _QUOTED.match(term.get("def", ""))
        rows.append((term.get("name", "").strip(), term["id"], _ESCAPED.sub(r"\1", quoted[1]) if quoted else ""))
    return rows


_READERS: dict[str, Callable[[str], list[Row]]] = {
    ".txt": _of_lines, ".tsv": _of_lines, ".json": _of_json, ".obo": _of_obo,
}  # fmt: skip
