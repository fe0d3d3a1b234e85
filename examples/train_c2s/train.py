"""Train the packaged C2S model: ``python examples/train_c2s/train.py --data FOLDER --out out/demo_c2s_checkpoint``.

``--check`` leaves a sixth of the training cells out and judges them: that is how settings are chosen. Without it all
training cells are used. The held-out cells take part in neither. A run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from judge import share_right
from lessons import Lessons, Plan
from network import loss_parts, make_model
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sets import SETS, TAUGHT, CellSet, checked, load
from transformers import GPT2LMHeadModel
from words import END

CARD = Path(__file__).with_name("card.txt")


@dataclass
class Trainer:
    """The model in training, its running average, and how far they are."""

    lessons: Lessons
    model: GPT2LMHeadModel
    average: GPT2LMHeadModel
    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    epoch: int = 0
    step: int = 0

    @classmethod
    def start(cls, lessons: Lessons) -> Trainer:
        """Initialise everything for the first epoch."""
        plan, model, average = lessons.plan, make_model(lessons), make_model(lessons)
        groups = [
            {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": plan.decay},
            {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.98))
        steps = plan.epochs * lessons.batches_per_epoch
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, steps, pct_start=0.1)
        return cls(lessons, model, average, optimiser, schedule)

    def run_epoch(self) -> dict[str, float]:
        """Train over all cells once; a pure function of the state, the seed and the epoch's number."""
        plan = self.lessons.plan
        torch.manual_seed(plan.seed * 100_003 + self.epoch)  # dropout
        self.model.train()
        total: Counter[str] = Counter()
        batches = self.lessons.epoch(self.epoch)
        for batch in batches:
            parts = loss_parts(self.model, batch, self.lessons.is_gene, plan)
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
        keep = min(self.lessons.plan.ema, (1 + self.step) / (10 + self.step))
        for mean, now in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(now, 1 - keep)

    @property
    def identity(self) -> str:
        """Say what is being trained, so that another training is never taken up by mistake."""
        names = " ".join(name for cells in self.lessons.sets for name in cells.names)
        return f"{self.lessons.plan} {len(self.lessons.is_gene)} {names}"

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

    def train(self, state: Path) -> GPT2LMHeadModel:
        """Train to the end of the plan and return the averaged model."""
        self.resume(state)
        words = (
            TextColumn("epoch"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[loss]}"),
        )
        with Progress(*words) as progress:
            bar = progress.add_task("train", total=self.lessons.plan.epochs, completed=self.epoch, loss="")
            while self.epoch < self.lessons.plan.epochs:
                losses = self.run_epoch()
                self.store(state)
                line = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
                progress.update(bar, completed=self.epoch, loss=line)
                if not progress.console.is_terminal:
                    progress.console.print(f"{self.epoch}: {line}")
        return self.average


def save(folder: Path, model: GPT2LMHeadModel, lessons: Lessons) -> None:
    """Write a Hugging Face folder, with what a bundle must know besides."""
    model.save_pretrained(folder)
    lessons.tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": END, "bos_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(special, indent=1) + "\n", encoding="utf-8")
    about = {"num_genes": lessons.plan.num_genes, "notes": CARD.read_text(encoding="utf-8").strip()}
    (folder / "c2s.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of zheng68k.h5ad and scp1884.h5ad")
    parser.add_argument("--out", type=Path, default=Path("out/demo_c2s_checkpoint"))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=TAUGHT, help="what to learn from")
    parser.add_argument("--check", action="store_true", help="leave a part of the training cells out and judge it")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="change the plan, as in epochs=20")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    changes = {name: json.loads(value) for name, value in (pair.split("=") for pair in options.set)}
    cells = {name: split.train for name, split in load(options.data, options.sets).items()}
    left_out: dict[str, CellSet] = {}
    if options.check:
        cut = {name: checked(one) for name, one in cells.items()}
        cells, left_out = {k: v.train for k, v in cut.items()}, {k: v.held_out for k, v in cut.items()}
    lessons = Lessons.of(list(cells.values()), Plan(**changes))
    options.out.mkdir(parents=True, exist_ok=True)
    model = Trainer.start(lessons).train(options.out / "training.pt")
    save(options.out, model, lessons)
    for name, some in left_out.items():
        labels = sorted({str(one) for one in cells[name].labels})
        right = share_right(model, lessons.tokenizer, some, labels, lessons.plan.num_genes)
        print(f"{name}: {right:.1%} of {len(some)} cells left out of training")


if __name__ == "__main__":
    main()
