"""What ``annotate``, ``ask`` and ``generate`` share where a bundle follows instructions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cellscribe.engine.bundle import Bundle
from cellscribe.engine.cells import CellSource
from cellscribe.engine.errors import UsageError
from cellscribe.engine.instruct.asking import AskSettings
from cellscribe.engine.instruct.templates import ANNOTATION
from cellscribe.engine.instruct_model import InstructModel
from cellscribe.engine.labels import Labels
from cellscribe.engine.text_types import TextSettings


def asked_of(
    instruction: str | None, task: str | None, fields: Mapping[str, str], template: str | None, seed: int
) -> AskSettings:
    """Put the options together; UsageError for a template that is no number."""
    if instruction is not None and task is not None:
        raise UsageError("an instruction of your own is no task; leave --task or it out.")
    number, draws = template_of(template)
    return AskSettings(instruction, task or ANNOTATION, dict(fields), number, draws, seed)


def template_of(text: str | None) -> tuple[int | None, bool]:
    """Return the number of an instruction, or None, and whether one is drawn; UsageError for another word."""
    if text is None or text == "draw":
        return None, text == "draw"
    if not text.isdecimal():
        raise UsageError(f"--template is {text!r}; give the number of an instruction, from 0 on, or draw.")
    return int(text), False


def refuse_sentences(bundle: Bundle, settings: TextSettings, *others: tuple[str, object]) -> None:
    """Raise UsageError for options of bundles that read sentences; `others` are names and values, None by default."""
    defaults = TextSettings()
    given = [name for name, value in others if value is not None]
    given += ["--organism"] if settings.organism != defaults.organism else []
    given += ["--genes-per-cell"] if settings.num_genes is not None else []
    if given:
        raise UsageError(
            f"{given[0]} is for bundles that read sentences, and {bundle.name} follows instructions; leave it out "
            "(--set species=TEXT says where cells come from)."
        )


def instruct_facts(
    model: InstructModel, source: CellSource, num_rows: int, labels: Labels | None = None
) -> Iterator[tuple[str, str]]:
    """Say what is about to run: device, bundle, cells, values, genes, labels."""
    yield "device", model.device
    yield "bundle", f"{model.bundle.name} ({model.bundle.manifest.family}, {model.bundle.manifest.precision})"
    yield "cells", f"{num_rows:,} of {source.name}"
    yield "values", source.value_note
    yield "genes", model.cells(source).sentence()
    if labels is not None:
        yield "labels", f"{len(labels.names):,}"
