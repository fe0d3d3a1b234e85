"""What open slots need to know of a bundle that writes texts after prompts."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from cellscribe.engine.backends.base import Slots
from cellscribe.engine.backends.prompt_rows import common_prefix
from cellscribe.engine.backends.text import TextPlan
from cellscribe.engine.decode.labels import LabelTrie
from cellscribe.engine.decode.scheduler import Text, TextRequest
from cellscribe.engine.keyed import cell_key
from cellscribe.engine.sentences.frame import Frame
from cellscribe.engine.sentences.templates import ANNOTATION
from cellscribe.engine.service.families.base import Item, TextWork, Work
from cellscribe.engine.text_answers import answer_of
from cellscribe.engine.text_model import TextModel
from cellscribe.engine.text_types import Answer
from cellscribe.engine.text_writer import open_room
from cellscribe.engine.types import Sampling

_LISTS = 8  # of labels that are kept as tries
_PROMPT, _TEXT = 256, 64  # tokens that rooms are rounded up to


@dataclass(frozen=True)
class Room:
    """Tokens that a slot has, or a text needs: of the prompt, of the text, and of the longest label."""

    prompt: int
    text: int
    label: int = 0

    @property
    def size(self) -> int:
        """All tokens."""
        return self.prompt + self.text + self.label

    def fits(self, other: Room) -> bool:
        """Whether what needs this room finds it in the other."""
        return self.prompt <= other.prompt and self.text <= other.text and self.label <= other.label

    def rounded(self, context: int) -> Room:
        """Return a larger room, for what may come beside; prompt and text stay within the context."""
        text = min(_up(self.text, _TEXT), context - self.prompt)
        prompt = min(_up(self.prompt, _PROMPT), context - text)
        return Room(prompt, text, _up(self.label, _TEXT) if self.label else _TEXT)


class Speaker:
    """Prompts in, texts out; for one thread."""

    def __init__(self, text: TextModel) -> None:
        self._text, self.context, self.tokenizer = text, text.context, text.bundle.tokenizer
        self.eos_ids = text.end_ids
        self._tries: OrderedDict[tuple[tuple[str, ...], Frame], LabelTrie] = OrderedDict()
        self._prefix = self._common()

    @property
    def most_steps(self) -> int:
        """Most times that the model is asked for a text; every request says its own."""
        return 2**31

    def room_of(self, item: Item, work: Work) -> Room | None:
        """Return the room that a text needs; None for what is no text."""
        if not isinstance(work, TextWork):
            return None
        if item.failure:
            return Room(0, 0)
        if work.labels is None:
            return Room(item.prompt_tokens, work.max_new_tokens)
        longest = max(map(len, self._trie(work.labels, work.frame).sequences))
        return Room(item.prompt_tokens, longest, longest)

    def open(self, room: Room, num_slots: int) -> tuple[Slots, int]:
        """Open slots; as many as there is room for."""
        plan = TextPlan(
            num_slots, room.prompt, room.text, Sampling(), self.eos_ids,
            prefix=self._prefix if len(self._prefix) < room.prompt else (), longest_label=room.label, mixes=True,
        )  # fmt: skip
        return open_room(self._text.runtime.open_text_slots, plan)

    def request(self, index: int, item: Item, work: Work) -> TextRequest:
        """Return what is asked of the slots."""
        assert isinstance(work, TextWork)
        key = cell_key(item.name)
        if work.labels is None:
            return TextRequest(index, key, item.payload, None, work.max_new_tokens, sampling=work.sampling)
        trie = self._trie(work.labels, work.frame)
        most = max(map(len, trie.sequences))
        if work.all_labels:
            most = max(most, len(trie.visits))
        return TextRequest(index, key, item.payload, trie, most, all_labels=work.all_labels)

    def answer(self, item: Item, work: Work, text: Text) -> Answer:
        """Return a finished text as an answer."""
        assert isinstance(work, TextWork)
        return answer_of(self._text, item.name, text, work.frame)

    def failed(self, item: Item) -> Answer:
        """Return the answer of what cannot be answered."""
        return Answer(item.name, "", (), float("nan"), "failed", f"failed: {item.failure}")

    def _trie(self, labels: tuple[str, ...], frame: Frame) -> LabelTrie:
        key = labels, frame
        if key not in self._tries:
            self._tries[key] = self._text.label_trie(labels, frame=frame)
        self._tries.move_to_end(key)
        while len(self._tries) > _LISTS:
            self._tries.popitem(last=False)
        return self._tries[key]

    def _common(self) -> tuple[int, ...]:
        """Return the tokens that prompts for labels begin with, whatever the cell."""
        prompt = self._text.prompt_of(ANNOTATION, "")
        texts = [self._text.prompts.of_cell(prompt, one) for one in ("MALAT1 B2M", "CD74 ACTB")]
        return tuple(common_prefix(self._text.encode(texts)).tolist())


def _up(number: int, step: int) -> int:
    return -(-number // step) * step
