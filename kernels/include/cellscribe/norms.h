/* Norms with the sum that stands before them. Computed in float32; widths 1..8192; strides in elements, the last axis
 * is contiguous. `out` may be `update` (or, for the LayerNorm, `x`) itself; otherwise arrays do not overlap.
 */
#pragma once

#include <stdint.h>

#include "cellscribe/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* x += update + update_bias; out = x / sqrt(mean(x^2) + eps) * weight. */
typedef struct CellscribeAddRmsNorm {
    int32_t num_rows;
    int32_t width;
    float eps;
    float *x; /* fp32 [rows, width], the residual stream, in and out */
    int64_t x_row;
    const void *update; /* fp16 [rows, width]; null: nothing is added, x is only read */
    int64_t update_row;
    const float *update_bias; /* fp32 [width], added with update; null: none */
    const float *weight;      /* fp32 [width] */
    void *out;                /* fp16 [rows, width]; null: only the sum is wanted */
    int64_t out_row;
} CellscribeAddRmsNorm;

/* out = (y - mean(y)) / sqrt(var(y) + eps) * weight + bias + table[ids], with y = x + update + update_bias. */
typedef struct CellscribeAddLayerNorm {
    int32_t num_rows;
    int32_t width;
    float eps;
    const void *x; /* fp16 [rows, width] */
    int64_t x_row;
    const void *update; /* fp16 [rows, width]; null: none */
    int64_t update_row;
    const float *update_bias; /* fp32 [width], added with update; null: none */
    const float *weight;      /* fp32 [width] */
    const float *bias;        /* fp32 [width] */
    const void *table;        /* fp16 [table_rows, width], added after the norm; null: none */
    int64_t table_row;
    const int64_t *ids; /* [rows], rows of the table, clamped to it */
    int32_t table_rows;
    void *out; /* fp16 [rows, width] */
    int64_t out_row;
} CellscribeAddLayerNorm;

int cellscribe_add_rms_norm(const CellscribeAddRmsNorm *p, void *stream);
int cellscribe_add_layer_norm(const CellscribeAddLayerNorm *p, void *stream);

#ifdef __cplusplus
}
#endif
