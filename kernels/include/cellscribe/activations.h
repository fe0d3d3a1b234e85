/* What happens between two products, element by element. Computed in float32; strides in elements, the last axis is
 * contiguous; any width.
 */
#pragma once

#include <stdint.h>

#include "cellscribe/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* out = silu(gate) * up, where a row of x holds gate and then up. */
typedef struct CellscribeGatedSilu {
    int32_t num_rows;
    int32_t width; /* f */
    const void *x; /* fp16 [rows, 2 f] */
    int64_t x_row;
    void *out; /* fp16 [rows, f]; may be the gate's place in x */
    int64_t out_row;
} CellscribeGatedSilu;

/* out = x + bias, and no less than 0 where relu is set. */
typedef struct CellscribeBiasRelu {
    int32_t num_rows;
    int32_t width;
    int32_t relu;  /* nonzero: negative sums become 0 */
    const void *x; /* fp16 [rows, width] */
    int64_t x_row;
    const float *bias; /* fp32 [width]; null: none */
    void *out;         /* fp16 [rows, width]; may be x */
    int64_t out_row;
} CellscribeBiasRelu;

/* out = relu(min(value, max_value) * weight + bias): the first layer of the value encoder. */
typedef struct CellscribeValueExpand {
    int32_t num_rows;
    int32_t width;
    float max_value;
    const float *values; /* fp32 [rows] */
    const float *weight; /* fp32 [width] */
    const float *bias;   /* fp32 [width] */
    void *out;           /* fp16 [rows, width] */
    int64_t out_row;
} CellscribeValueExpand;

int cellscribe_gated_silu(const CellscribeGatedSilu *p, void *stream);
int cellscribe_bias_relu(const CellscribeBiasRelu *p, void *stream);
int cellscribe_value_expand(const CellscribeValueExpand *p, void *stream);

#ifdef __cplusplus
}
#endif
