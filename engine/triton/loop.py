"""The loop behind the Python model: one thread that owns the backend, and writes whatever is asked."""

from __future__ import annotations

import threading
from pathlib import Path

from cellscribe.engine.backends.choose import choose_backend
from cellscribe.engine.bundle import open_bundle
from cellscribe.engine.decode.described import failed
from cellscribe.engine.describe import DescribeOptions
from cellscribe.engine.errors import CellscribeError
from cellscribe.engine.triton.cells import Asked, CellReader, check_bundle
from cellscribe.engine.triton.course import Course
from cellscribe.engine.triton.waiting import Receiver, WaitingRoom
from cellscribe.engine.types import Sampling

MAX_WAITING = 1024


class Loop:
    """A bundle at work: requests share its slots, and each gets its text as it grows.

    Parameters
    ----------
    folder
        The bundle.
    num_slots, max_new_tokens
        Texts in progress at a time, and the longest text that a request may ask for.
    backend, plans
        See :func:`cellscribe.engine.backends.choose.choose_backend`.
    top_genes
        Genes given with a token and with a text.

    Raises
    ------
    BundleError
        When the bundle is missing or damaged, or describes no single cells.
    BackendError
        When the backend cannot run here.
    """

    def __init__(
        self,
        folder: Path,
        *,
        num_slots: int = 32,
        max_new_tokens: int = 96,
        backend: str = "auto",
        plans: Path | None = None,
        top_genes: int = 10,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.bundle = open_bundle(folder)
        check_bundle(self.bundle)
        self.max_new_tokens, self.reader = max_new_tokens, CellReader(self.bundle)
        self._num_slots, self._top_genes = num_slots, top_genes
        self._backend = choose_backend(self.bundle, backend, plans=plans).backend
        self._room = WaitingRoom(max_waiting)
        self._thread = threading.Thread(target=self._work, name="cellscribe loop", daemon=True)
        self._thread.start()

    @property
    def device(self) -> str:
        """Device and provider in words."""
        return self._backend.device

    def submit(self, asked: Asked, to: Receiver) -> None:
        """Have a cell described; BackendError when too many wait already."""
        if asked.batch.failures:
            to.done(failed(asked.cell_id, asked.batch.failures[0][1]))
            return
        self._room.put(asked, to)

    def close(self) -> None:
        """Finish what was asked, and end."""
        self._room.close()
        self._thread.join()

    def _work(self) -> None:
        options = DescribeOptions(Sampling(), self.max_new_tokens, self._num_slots, self._top_genes)
        while self._room.wait():
            course = Course(self._backend, self.bundle, options, self._room)
            try:
                course.run()
            except Exception as error:  # whatever it is, those who wait must hear of it, and others be served
                why = str(error) if isinstance(error, CellscribeError) else f"{type(error).__name__}: {error}"
                course.lose(why)
                self._turn_away(why, course)

    def _turn_away(self, why: str, course: Course) -> None:
        """Tell those who would only meet the same error: where no slot was opened, nobody was taken in."""
        if course.num_taken:
            return
        for _, to in self._room.take(MAX_WAITING):
            to.lost(why)
