"""Train the demonstration model: ``python examples/train_demo/train.py --out out/demo_checkpoint``.

``--fold K`` trains on four fifths of the training cells and judges the rest: that is how settings are chosen. Without
it all training cells are used. The held-out cells take no part in either. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from cells import Cells, folds, load, split
from course import Course, Plan
from generate import score
from network import DemoModel, Sizes, Weights, loss_parts
from pools import PoolPlan, teach_pools
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from save import save


@dataclass
class Trainer:
    """The model in training, its running average, and how far they are."""

    course: Course
    weights: Weights
    model: DemoModel
    average: DemoModel
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    epoch: int = 0
    step: int = 0

    @classmethod
    def start(cls, course: Course, sizes: Sizes, weights: Weights) -> Trainer:
        """Initialise everything for the first epoch."""
        plan, model, average = course.plan, course.model(sizes, weights), course.model(sizes, weights)
        model.prepare(len(course.encoder.prompt))
        groups = [
            {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": plan.decay},
            {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98))
        steps = plan.epochs * course.batches_per_epoch
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, steps, pct_start=0.1)
        return cls(course, weights, model, average, optimiser, schedule)

    def run_epoch(self) -> dict[str, float]:
        """Train over all cells once; a pure function of the state, the seed and the epoch's number."""
        torch.manual_seed(self.course.plan.seed * 100_003 + self.epoch)  # dropout
        self.model.train()
        total: Counter[str] = Counter()
        batches, words = self.course.epoch(self.epoch), self.course.words
        for batch in batches:
            parts = loss_parts(self.model, batch, words, self.weights)
            self.optimiser.zero_grad(set_to_none=True)
            torch.stack(list(parts.values())).sum().backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            self.schedule.step()
            self._average()
            total.update({name: value.item() / len(batches) for name, value in parts.items()})
        self.epoch += 1
        return dict(total)

    @torch.no_grad()
    def _average(self) -> None:
        self.step += 1
        keep = min(self.course.plan.ema, (1 + self.step) / (10 + self.step))
        for mean, now in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(now, 1 - keep)

    @property
    def identity(self) -> str:
        """Say what is being trained, so that another training is never taken up by mistake."""
        shapes = sum(p.numel() for p in self.model.parameters())
        return f"{self.course.plan} {self.weights} {shapes} {' '.join(self.course.cells.names)}"

    def store(self, path: Path) -> None:
        """Write the state, so that a stopped run can go on."""
        beside = path.with_suffix(".part")
        parts = {name: getattr(self, name).state_dict() for name in ("model", "average", "optimiser", "schedule")}
        torch.save({**parts, "epoch": self.epoch, "step": self.step, "identity": self.identity}, beside)
        beside.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a stored state, if there is one of the same training."""
        stored = torch.load(path, weights_only=True) if path.exists() else {}
        if stored.get("identity") != self.identity:
            return
        for name in ("model", "average", "optimiser", "schedule"):
            getattr(self, name).load_state_dict(stored[name])
        self.epoch, self.step = stored["epoch"], stored["step"]


def train(trainer: Trainer, state: Path) -> DemoModel:
    """Train to the end of the plan and return the averaged model."""
    trainer.resume(state)
    columns = (
        TextColumn("epoch"),
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    with Progress(*columns) as progress:
        plan = trainer.course.plan
        bar = progress.add_task("train", total=plan.epochs, completed=trainer.epoch, loss="")
        while trainer.epoch < plan.epochs:
            losses = trainer.run_epoch()
            trainer.store(state)
            line = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
            progress.update(bar, completed=trainer.epoch, loss=line)
            if not progress.console.is_terminal and trainer.epoch % 5 == 0:
                progress.console.print(f"{trainer.epoch}: {line}")
    return trainer.average


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/demo_checkpoint"))
    parser.add_argument("--fold", type=int, choices=range(5), help="train without this fold and judge it")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="change the plan, as in epochs=20")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    changes = {name: json.loads(value) for name, value in (pair.split("=") for pair in options.set)}
    cells = load()
    cells = cells.take(split(cells)[0])
    check: Cells | None = None
    if options.fold is not None:
        fit, rest = list(folds(cells))[options.fold]
        cells, check = cells.take(fit), cells.take(rest)
    course = Course.of(cells, Plan(**changes))
    options.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer.start(course, Sizes(), Weights())
    model = train(trainer, options.out / "training.pt")
    trainer.model.load_state_dict(model.state_dict())
    teach_pools(course, trainer.model, trainer.weights, PoolPlan())
    model.load_state_dict(trainer.model.state_dict())
    save(options.out, model.encoder, model.decoder, course.encoder.tokenizer, course.cells.genes)
    if check is not None:
        figures, texts = score(course, model, check)
        print(*texts[:5], json.dumps(figures, indent=1), sep="\n")


if __name__ == "__main__":
    main()
