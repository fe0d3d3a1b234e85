"""How fast is plain decoding beside other engines? ``python benchmarks/plain_llama.py [--again] [--bits 4 8 16 32]``.

A TinyLlama-1.1B shape with random weights, the same for all, prompts of 64 tokens, 32 new ones, at 1, 8 and 32 slots;
engines of one bit width are asked in turn. Tokens are compared with those of transformers in fp32, and with ours in 16,
8 and 4 bits, where every engine rounds the weights in its own way; the tables say how many are equal.
"""

from __future__ import annotations

import argparse

from peers.compared import Comparison, kept
from peers.floors import plain
from peers.registry import LLAMA_PEERS, OUR_LLAMAS, Peer
from peers.tiny_llama import SHAPES, random_prompts

SHAPE, PROMPT_LEN, NEW_TOKENS, SLOTS = "tinyllama-1.1b", 64, 32, (1, 8, 32)
# Engines that fit into memory together; of torch's ways the fastest at each size is kept.
FP32 = (
    ("transformers", "CTranslate2", "llama.cpp F32"),
    ("transformers oneDNN", "optimum-onnx", "onnxruntime-genai"),
    ("transformers", "transformers generate", "transformers compiled"),
)
REFERENCES = ("transformers", "transformers oneDNN")
PARTS = {
    "whole": lambda one: [one["seconds"]],
    "prompt": lambda one: [one["prefill_seconds"]],
    "step": lambda one: one["step_seconds"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="measure anew what is there already")
    parser.add_argument("--bits", type=int, nargs="*", default=[4, 8, 32], choices=[4, 8, 16, 32])
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    todo = [
        comparison(f"{bits} bits{name}, {slots} slots", slots, peers, asked.rounds)
        for bits in asked.bits
        for name, peers in teams(bits)
        for slots in SLOTS
    ]
    kept("plain_llama", todo, PARTS, plain(SHAPES[SHAPE]), again=asked.again)


def teams(bits: int) -> list[tuple[str, tuple[Peer, ...]]]:
    ours = tuple(one for one in OUR_LLAMAS if one.bits == bits)
    if bits != 32:
        return [("", (*ours, *(one for one in LLAMA_PEERS if one.bits == bits)))]
    return [
        (f", team {i + 1}", (*ours, *(one for one in LLAMA_PEERS if one.name in names))) for i, names in enumerate(FP32)
    ]


def comparison(key: str, slots: int, peers: tuple[Peer, ...], rounds: int) -> Comparison:
    prompts = random_prompts(slots, PROMPT_LEN, SHAPES[SHAPE].vocab_size)
    return Comparison(
        key,
        peers,
        {"do": "generate", "prompts": prompts, "new_tokens": NEW_TOKENS},
        units=slots * NEW_TOKENS,
        rounds=rounds,
        reference=next((one.name for one in peers if one.name in REFERENCES), peers[0].name),
        asks_margins=any(one.name in REFERENCES for one in peers),
        shape=SHAPE,
        sizes={"slots": slots, "prompt_len": PROMPT_LEN, "new_tokens": NEW_TOKENS},
    )


if __name__ == "__main__":
    main()
