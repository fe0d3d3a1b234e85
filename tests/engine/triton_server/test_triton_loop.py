from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import anndata as ad
import numpy as np
import pytest

from cellscribe.engine.bundle import Bundle, open_bundle
from cellscribe.engine.cells import CellSource, CellTokenizer, GeneMatch, TokenBatch, match_source, open_cells
from cellscribe.engine.describe import longest_memory
from cellscribe.engine.errors import BackendError, BundleError
from cellscribe.engine.packaged import packaged_bundle, packaged_cells
from cellscribe.engine.triton.cells import Asked, CellReader, check_bundle, joined, most_tokens
from cellscribe.engine.triton.loop import Loop
from cellscribe.engine.triton.waiting import WaitingRoom
from cellscribe.engine.types import Description, Piece, Sampling

GREEDY, DRAWN = Sampling(), Sampling(0.9, 0.7, 3)


class Listener:
    """Keeps what it is told."""

    wants_pieces, has_left = True, False

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.text: Description | None = None
        self.why = ""
        self.is_told = threading.Event()

    def piece(self, piece: Piece) -> None:
        self.pieces.append(piece)

    def done(self, description: Description) -> None:
        self.text = description
        self.is_told.set()

    def lost(self, why: str) -> None:
        self.why = why
        self.is_told.set()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(packaged_bundle())


@pytest.fixture(scope="module")
def asked(bundle: Bundle) -> list[Asked]:
    cells = ad.read_h5ad(packaged_cells())[:6]
    names = cells.obs_names.tolist()
    values, reader = cells.X.toarray(), CellReader(bundle)
    batches = [reader.read(cells.var_names.tolist(), values[i], names[i]) for i in range(6)]
    return [Asked(name, batch, GREEDY, 32) for name, batch in zip(names, batches, strict=True)]


def batch_of(width: int, name: str) -> TokenBatch:
    genes = np.arange(width)[None]
    return TokenBatch(
        np.zeros(1, np.int64), (name,), genes, np.ones((1, width), np.float32), np.ones((1, width), np.bool_), genes
    )


def test_genes_are_matched_once_for_every_list_of_them(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = ad.read_h5ad(packaged_cells())[:2]
    genes, values = cells.var_names.tolist(), cells.X.toarray()
    matched: list[int] = []

    def counted(source: CellSource, *others: Any) -> GeneMatch:
        matched.append(source.n_genes)
        return match_source(source, *others)

    monkeypatch.setattr("cellscribe.engine.triton.cells.match_source", counted)
    monkeypatch.setattr("cellscribe.engine.triton.cells._MOST_MATCHES", 2)
    reader = CellReader(bundle)
    lists = [genes, genes, genes[::-1], genes, genes[:-1], genes]  # the fourth is remembered, the last forgotten
    batches = [reader.read(names, values[0][: len(names)], "one") for names in lists]
    assert matched == [765, 765, 764, 765]
    assert (batches[0].values == batches[-1].values).all()
    assert not (batches[0].values == batches[2].values).all()  # other genes have those values


def test_neighbours_of_one_width_are_encoded_together() -> None:
    made = joined([batch_of(3, "a"), batch_of(3, "b"), batch_of(5, "c"), batch_of(3, "d")])
    assert [one.cell_ids for one in made] == [("a", "b"), ("c",), ("d",)]
    assert [one.genes.shape for one in made] == [(2, 3), (1, 5), (1, 3)]
    assert joined([]) == []


def test_slots_hold_the_longest_cell_that_can_come(bundle: Bundle) -> None:
    manifest = bundle.manifest
    with open_cells(packaged_cells()) as source:
        assert most_tokens(bundle) == longest_memory(CellTokenizer(manifest.cell_input, bundle.vocabulary, source))
    ragged = replace(bundle, manifest=replace(manifest, cells=replace(manifest.cell_input, layout="ragged")))
    assert most_tokens(ragged) == 1 + manifest.cell_input.num_genes


def test_genes_that_are_chosen_from_a_file_cannot_be_served(bundle: Bundle) -> None:
    manifest = bundle.manifest
    choosing = replace(bundle, manifest=replace(manifest, cells=replace(manifest.cell_input, selection="hvg")))
    with pytest.raises(BundleError, match="a request holds one cell"):
        check_bundle(choosing)


def test_a_room_gives_out_what_it_has_in_order_and_takes_no_more_than_it_may(asked: list[Asked]) -> None:
    room = WaitingRoom(3)
    assert not room.is_ready()
    for one in asked[:3]:
        room.put(one, Listener())
    with pytest.raises(BackendError, match="3 requests wait already"):
        room.put(asked[3], Listener())
    assert [one.cell_id for one, _ in room.take(2)] == [one.cell_id for one in asked[:2]]
    room.close()
    assert room.wait()  # who waits is still served
    assert len(room.take(8)) == 1
    assert room.is_ready()
    assert not room.wait()
    with pytest.raises(BackendError, match="is being unloaded"):
        room.put(asked[3], Listener())


def test_slots_that_cannot_be_opened_are_told_to_all_that_wait(
    asked: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(packaged_bundle(), num_slots=2, max_new_tokens=32, backend="onnxruntime-cpu")
    opened, backend = loop._backend.open_slots, loop._backend

    def fails(plan: object) -> object:
        raise BackendError("no room on the device; choose fewer slots.")

    monkeypatch.setattr(backend, "open_slots", fails)
    first, second = Listener(), Listener()
    loop.submit(asked[0], first)
    assert first.is_told.wait(60)
    assert first.why == "no room on the device; choose fewer slots."
    monkeypatch.setattr(backend, "open_slots", opened)
    loop.submit(asked[0], second)
    loop.close()
    assert second.text is not None


def test_requests_of_several_samplings_that_come_at_any_time_get_the_text_they_get_alone(asked: list[Asked]) -> None:
    loop = Loop(packaged_bundle(), num_slots=2, max_new_tokens=32, backend="onnxruntime-cpu")
    texts: list[dict[tuple[str, Sampling], str]] = []
    for at_once in (False, True):
        listeners = {}
        for i, one in enumerate(asked):
            request = replace(one, sampling=DRAWN if i % 3 == 2 else GREEDY)
            listener = listeners[request.cell_id, request.sampling] = Listener()
            loop.submit(request, listener)
            assert at_once or listener.is_told.wait(60)
        for listener in listeners.values():
            assert listener.is_told.wait(60)
        texts.append({key: one.text.text for key, one in listeners.items() if one.text is not None})
        assert all(len(one.pieces) == one.text.num_tokens for one in listeners.values() if one.text is not None)
    loop.close()
    assert len(texts[0]) == len(asked)
    assert texts[0] == texts[1]


def test_closing_finishes_what_was_asked(asked: list[Asked]) -> None:
    loop = Loop(packaged_bundle(), num_slots=1, max_new_tokens=32, backend="onnxruntime-cpu")
    listeners = [Listener() for _ in asked]
    for one, listener in zip(asked, listeners, strict=True):
        loop.submit(one, listener)
    loop.close()
    assert all(listener.text is not None and listener.text.is_ok for listener in listeners)
    with pytest.raises(BackendError, match="is being unloaded"):
        loop.submit(asked[0], Listener())


def test_an_encoder_that_fails_loses_those_it_was_for_alone(
    asked: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop(packaged_bundle(), num_slots=2, max_new_tokens=32, backend="onnxruntime-cpu")
    encode = loop._backend.encode

    def fails(batch: TokenBatch) -> object:
        if asked[1].cell_id in batch.cell_ids:
            raise BackendError("no room on the device; choose fewer slots.")
        return encode(batch)

    monkeypatch.setattr(loop._backend, "encode", fails)
    for one, words in ((asked[0], ""), (asked[1], "no room on the device; choose fewer slots."), (asked[2], "")):
        listener = Listener()
        loop.submit(one, listener)
        assert listener.is_told.wait(60)
        assert listener.why == words
        assert (listener.text is None) == bool(words)
    loop.close()
