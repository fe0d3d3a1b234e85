"""Files that are refused."""

from __future__ import annotations

import pytest

from cellscribe.engine.cells import ReadLimits, open_cells, reading
from cellscribe.engine.cells.contents import open_contents
from cellscribe.engine.cells.kinds import checked_kind
from cellscribe.engine.errors import InputError

SILENT = reading.Answers(-1, ReadLimits())
SILENT.tick = lambda: None


def read_all(path, limits):
    with open_cells(path, limits=limits) as source:
        return list(source.blocks())


def refuse(path, match, limits=None):
    """Make sure that reading ends with one sentence."""
    with pytest.raises(InputError, match=match) as caught:
        read_all(path, limits or ReadLimits())
    return check_sentence(str(caught.value))


def refuse_here(path, match, limits=None):
    """Make sure that what the reading process does, done here, ends with one sentence; it is much quicker."""
    with pytest.raises(InputError, match=match) as caught:
        read_here(path, limits or ReadLimits())
    return check_sentence(str(caught.value))


def read_here(path, limits):
    try:
        contents = open_contents(path.resolve(), checked_kind(path), path.name, limits, lambda: None)
        session = reading.FileSession(contents, path.name, limits, SILENT)
        session.describe()
        session.var(False)
        session.stats("X")
    except Exception as error:
        raise InputError(reading._sentence(path.name, error)) from error


def check_sentence(text):
    assert "\n" not in text
    assert text.endswith(".")
    return text
