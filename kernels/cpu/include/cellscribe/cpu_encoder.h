/* The native encoder: genes and values of one cell in, memory out.
 *
 * As in cpu.h, every function exists once per instruction set. Twins of the structs: kernels/cpu_encoder.py. */
#ifndef CELLSCRIBE_CPU_ENCODER_H
#define CELLSCRIBE_CPU_ENCODER_H
#include <stdint.h>

typedef struct {
  void* qkv; /* d -> 3 H D, as are all: packed weights with their bias */
  void* out;
  void* linear1;
  void* linear2;
  const float* norm1; /* scale [d], then shift [d] */
  const float* norm2;
  float eps1, eps2;
} cellscribe_cpu_encoder_layer;

/* A token table and the LayerNorm that its rows pass when they are read; numbers are float32 or fp16. */
typedef struct {
  const void* numbers; /* [rows, d] */
  const float* norm;   /* scale [d], then shift [d] */
  int64_t is_half;
  float eps;
} cellscribe_cpu_table;

enum { CELLSCRIBE_VALUES_CONTINUOUS = 0, CELLSCRIBE_VALUES_CATEGORY = 1, CELLSCRIBE_VALUES_SCALING = 2 };

typedef struct {
  int64_t d_model, n_layers, n_heads, d_ffn;
  int64_t attention_kind; /* 0 float32, 2 bf16 */
  int64_t value_style;
  cellscribe_cpu_table genes;
  cellscribe_cpu_table values; /* of categories */
  const float* expand;         /* continuous: scale [d], then shift [d] of a value, before the ReLU */
  void* value_linear;
  const float* value_norm;
  float value_eps, max_value;
  const cellscribe_cpu_encoder_layer* layers;
} cellscribe_cpu_encoder;

/* The real tokens of one cell. A value style reads of `codes` and `values`:
 *   continuous   codes: index into `values`, the distinct values
 *   category     codes: row of the table
 *   scaling      values: one for each token */
typedef struct {
  int64_t count, num_values;
  const int64_t* genes; /* [count] */
  const int64_t* codes; /* [count] */
  const float* values;  /* [num_values] */
  const int64_t* rows;  /* [count], where in `memory` a token's row belongs */
  void* memory;         /* [S, d], float32 or fp16; other rows stay as they are */
  int64_t is_half;
} cellscribe_cpu_cell;
#endif
