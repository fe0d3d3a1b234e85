/* A product of one to eight rows with a matrix of weights, with what stands before and after it in a decoder.
 *
 * out = f(x) @ weight + bias, where f may be a norm or an activation, and the product may be added to what is there.
 * f(x) is rounded to fp16, as the kernels for f alone would round it; sums are float32. The weights are read once, in
 * the layout of the bundle. Strides are in elements, the last axis is contiguous. The order of all sums is fixed:
 * equal inputs and equal num_splits give equal bits.
 */
#pragma once

#include <stdint.h>

#include "cellscribe/status.h"
#include "cellscribe/types.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CELLSCRIBE_INPUT_PLAIN = 0,      /* f(x) = x, fp16 [R, K] */
    CELLSCRIBE_INPUT_RMS_NORM = 1,   /* f(x) = x / sqrt(mean(x^2) + eps) * norm_weight, fp32 [R, K] */
    CELLSCRIBE_INPUT_GATED_SILU = 2  /* f(x) = silu(gate) * up, fp16 [R, 2 K], gate first */
};

enum {
    CELLSCRIBE_OUTPUT_FP16 = 0,
    CELLSCRIBE_OUTPUT_FP32 = 1,
    CELLSCRIBE_OUTPUT_ADD_FP32 = 2 /* out += product: the residual stream; not the x that the norm reads */
};

typedef struct CellscribeSkinnyLinear {
    int32_t num_rows;    /* R, 1..8 */
    int32_t inner;       /* K, a multiple of 8 */
    int32_t width;       /* N, a multiple of 8; of 16 for int8 weights */
    int32_t weight_type; /* CELLSCRIBE_FP16 or CELLSCRIBE_INT8 */
    int32_t input;       /* CELLSCRIBE_INPUT_... */
    int32_t output;      /* CELLSCRIBE_OUTPUT_... */
    float eps;
    const void *x; /* fastest with 16-byte aligned rows */
    int64_t x_row;
    const float *norm_weight; /* fp32 [K], for CELLSCRIBE_INPUT_RMS_NORM */
    const void *weight;       /* [K, N], 16-byte aligned rows */
    int64_t weight_row;
    const float *scales; /* fp32 [N], for int8: a weight is its number times the scale of its column */
    const float *bias;   /* fp32 [N]; null: none */
    void *out;           /* [R, N] */
    int64_t out_row;
    int32_t num_splits;   /* blocks that share a column's sum; 0: as the device suggests */
    int32_t num_counters; /* of `counters` */
    uint32_t *counters;   /* zero before the first call, and after every one; calls at one time need their own */
    void *workspace;      /* 16-byte aligned, needs no initialisation; calls at one time need their own */
    int64_t workspace_bytes;
} CellscribeSkinnyLinear;

/* Bytes of workspace for these sizes, and counters; pointers are not looked at. Negative where a size is not served. */
int64_t cellscribe_skinny_linear_workspace(const CellscribeSkinnyLinear *p);
int32_t cellscribe_skinny_linear_counters(const CellscribeSkinnyLinear *p);
int cellscribe_skinny_linear(const CellscribeSkinnyLinear *p, void *stream);

#ifdef __cplusplus
}
#endif
