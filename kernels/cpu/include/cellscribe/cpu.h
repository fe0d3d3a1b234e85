/* The native CPU engine: packed weights, and a decoder whose slots live in it.
 *
 * Every function exists once per instruction set, with its name at the end: cellscribe_linear_new_avx2, _avx512 (with
 * VNNI), _avx512bf16. Handles of one set must not be given to another. Twins of the structs: kernels/cpu_structs.py. */
#ifndef CELLSCRIBE_CPU_H
#define CELLSCRIBE_CPU_H
#include <stdint.h>

/* Cross-attention of one layer. Latent: `key` and `value` hold a weight per key/value head (D -> m with the scale in it,
 * m -> D). Materialised: `to_keys` and `to_values` project the memory (m -> K D), `memory_norm` before them. */
typedef struct {
  const float* norm; /* [d], or NULL */
  void* q;
  void* out;
  void* const* key;
  void* const* value;
  void* to_keys;
  void* to_values;
  const float* memory_norm; /* scale [m] and shift [m] */
  const float* shift;       /* [H D], added to the mixture, or NULL */
  float out_scale;          /* of the mixture */
  float eps;
} cellscribe_cpu_cross;

typedef struct {
  const float* norm1;
  void* qkv; /* d -> (H + 2 K) D */
  void* out;
  const float* norm2;
  void* gate_up; /* d -> 2 f, or d -> f without a gate */
  void* down;
  float eps1, eps2;
  const float* shift1; /* [d] of a layer norm, or NULL */
  const float* shift2;
  const float* post1; /* [d], RMS norms of what attention and feed-forward add, or NULL */
  const float* post2;
  cellscribe_cpu_cross cross; /* of layers from n_lower on */
} cellscribe_cpu_layer;

enum { CELLSCRIBE_SILU = 0, CELLSCRIBE_GELU = 1, CELLSCRIBE_GELU_TANH = 2, CELLSCRIBE_RELU = 3 };

typedef struct {
  int64_t d_model, n_layers, n_lower, n_heads, n_kv_heads, d_head, d_ffn, vocab_size;
  int64_t cross_heads, cross_kv_heads, cross_width, d_memory; /* 0 without cross-attention */
  int64_t is_latent, memory_kind, normalises_memory, cache_kind; /* kinds: float32, or bytes */
  const cellscribe_cpu_layer* layers;
  const float* norm;
  void* head;
  const float* cos; /* [positions, R / 2] */
  const float* sin;
  float eps;
  const float* shift;     /* [d] of the last norm, where it is a layer norm */
  int64_t is_layer_norm;  /* all norms but `post1` and `post2` */
  int64_t activation, is_gated;
  int64_t is_parallel;    /* attention and feed-forward read the same input */
  int64_t rotary_width;   /* R: the first numbers of a head, halves turned against each other; 0: none */
  int64_t window, window_every; /* layers 0, every, 2 every, .. see only so many positions; 0: none does */
  float score_scale, attention_cap, logits_cap; /* cap * tanh(x / cap); 0: none */
  float cross_scale;      /* of scores of keys that are not latent */
  float head_scale;       /* of the normed states, before the head */
  int64_t sees_all;       /* a row sees all rows of its slot, which come in one call, and not those before it alone */
  const float* bias;      /* [H, reach + 1], or [H, 2 reach + 1] of what sees all, added to scaled scores, or NULL: */
  int64_t bias_reach;     /* of keys at the distances -reach.., key minus query; those beyond get the first or last */
} cellscribe_cpu_decoder;

/* New tokens: rows of one slot follow each other in rising position. `outputs` of the rows give logits. */
typedef struct {
  int64_t rows, outputs;
  const int64_t* slots;      /* [rows] */
  const int64_t* positions;  /* [rows] */
  const int64_t* chosen;     /* [outputs], rising row numbers */
  float* x;                  /* [rows, d], hidden states; overwritten */
  int64_t first_layer, last_layer; /* layers first..last-1; logits after the last one */
  float* logits;             /* [outputs, V] or NULL */
  float* evidence;           /* [outputs, genes] or NULL */
  float* attention;          /* [outputs, L, H, genes] or NULL */
  int64_t genes;
  float* states;             /* [outputs, d], normed, or NULL */
} cellscribe_cpu_call;
#endif
