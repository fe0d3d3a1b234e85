"""Cells as sentences: names of genes by falling expression, and back (Cell2Sentence; Levine et al., ICML 2024)."""

from cellscribe.engine.sentences.clean import Cleaned, CleanedBatch, clean_sentence, clean_sentences
from cellscribe.engine.sentences.genes import SentenceGenes
from cellscribe.engine.sentences.inverse import Inverse
from cellscribe.engine.sentences.ranked import Ranked, rank_genes, to_sentences

__all__ = [
    "Cleaned",
    "CleanedBatch",
    "Inverse",
    "Ranked",
    "SentenceGenes",
    "clean_sentence",
    "clean_sentences",
    "rank_genes",
    "to_sentences",
]
