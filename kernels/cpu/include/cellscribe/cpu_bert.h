/* BERT layers over sequences of tokens that lie one after the other, with attention across to a cell on request.
 *
 * As in cpu.h, every function exists once per instruction set. Twins of the structs: kernels/cpu_bert.py. */
#ifndef CELLSCRIBE_CPU_BERT_H
#define CELLSCRIBE_CPU_BERT_H
#include <stdint.h>

typedef struct {
  void* qkv; /* d -> 3 H D, as are all: packed weights with their bias */
  void* out;
  void* linear1;
  void* linear2;
  void* cross_q;   /* NULL, as are the next two, where nothing is attended to across */
  void* cross_kv;  /* m -> 2 H D */
  void* cross_out;
  const float* norm1; /* scale [d], then shift [d] */
  const float* norm2;
  const float* cross_norm;
  float eps1, eps2, cross_eps;
} cellscribe_cpu_bert_layer;

typedef struct {
  int64_t d_model, n_layers, n_heads, d_ffn, d_memory;
  int64_t attention_kind; /* 0 float32, 2 bf16 */
  int64_t is_gelu;        /* or ReLU */
  const cellscribe_cpu_bert_layer* layers;
} cellscribe_cpu_bert;

enum {
  CELLSCRIBE_BERT_LATE = 1,  /* x is what the first layer's self-attention gave: it is left out */
  CELLSCRIBE_BERT_EARLY = 2, /* what the first layer's self-attention gives is wanted, and nothing after it */
  CELLSCRIBE_BERT_FIRST = 4  /* only states of first tokens are wanted */
};

/* Sequences one after the other. N: tokens; Q: sequences. */
typedef struct {
  int64_t num_sequences;
  const int64_t* starts; /* [Q + 1], rising */
  const float* x;        /* [N, d], embedded and normed */
  void* memory;          /* what is attended to across, or NULL */
  int64_t flags;
  float* out;            /* [N, d], or [Q, d] */
} cellscribe_cpu_bert_run;
#endif
