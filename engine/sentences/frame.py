"""What an answer says around the value that is asked for: "This is a " and "." of "This is a {cell_type}."."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass

from cellscribe.engine.errors import UsageError


@dataclass(frozen=True)
class Frame:
    """The words `before` and `after` a value in an answer.

    `problem` says why there is no one value; such an answer is taken whole, and none can be written for a label.
    """

    before: str = ""
    after: str = ""
    problem: str = ""

    def written(self, value: str, gap: str = " ") -> str:
        """Return the answer of a value as it follows a prompt, from which white space (`gap`) parts it.

        Raises
        ------
        UsageError
            Where the answer has no one value.
        """
        if self.problem:
            raise UsageError(self.problem)
        text = f"{self.before}{value}{self.after}"
        return text if text[:1].isspace() else f"{gap}{text}"

    def value(self, text: str) -> str:
        """Return the value of an answer; the text itself where it does not begin as answers do, or has no value."""
        before, after = self.before.lstrip(), self.after.rstrip()
        if not text.startswith(before):
            return text
        return text[len(before) :].removesuffix(after).strip() or text


PLAIN = Frame()


def frame_of(task: str, answer: str, known: Mapping[str, str]) -> Frame:
    """Return what a task's answer says around its one value that is not known."""
    parts, names = [""], list[str]()
    for literal, name, _, _ in string.Formatter().parse(answer):
        parts[-1] += literal
        if name is None:
            continue
        if name in known:
            parts[-1] += str(known[name])
            continue
        names.append(name)
        parts.append("")
    if len(names) == 1:
        return Frame(*parts)
    found = " and ".join(f"{{{name}}}" for name in names) or "none"
    return Frame(problem=f"labels stand for one value, and the answer of the task {task} names {found}; name one.")
