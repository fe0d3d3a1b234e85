"""Which service a bundle gets."""

from __future__ import annotations

from pathlib import Path

from cellscribe.engine.dialogue_model import DialogueModel
from cellscribe.engine.match_model import MatchModel
from cellscribe.engine.model import Model
from cellscribe.engine.sentence_model import SentenceModel
from cellscribe.engine.service.calling import CallService
from cellscribe.engine.service.describing import DescribeService
from cellscribe.engine.service.families.instructions import Instructions
from cellscribe.engine.service.families.ranks import Ranks
from cellscribe.engine.service.families.sentences import Sentences
from cellscribe.engine.service.service import Service, ServiceSettings


def service_of(
    model: Model | SentenceModel | MatchModel | DialogueModel, demo: Path, settings: ServiceSettings
) -> Service:
    """Return the service of a bundle on its device.

    Parameters
    ----------
    model
        What :func:`cellscribe.engine.model.load` gave.
    demo
        A file of cells that clients can pick from.
    """
    if isinstance(model, SentenceModel):
        return CallService(model, demo, settings, lambda _: Sentences(model))
    if isinstance(model, DialogueModel):
        return CallService(model, demo, settings, lambda num_slots: Instructions(model, num_slots))
    if isinstance(model, MatchModel):
        return CallService(model, demo, settings, lambda _: Ranks(model))
    return DescribeService(model, demo, settings)
