/* Cross-attention of absorbed queries to a memory that all heads and layers share.
 *
 * For every slot b, head h and token t: p = softmax over s of scale * query . memory[s], out = sum over s of
 * p[s] memory[s]. Strides are in elements; the last axis is contiguous; query, memory and out rows are 16-byte aligned.
 * Rows of the memory that are not attended to are not read: they may hold anything. A slot with nothing to attend to
 * gives zeros. The result does not depend on timing: equal inputs on one device give equal bits.
 */
#pragma once

#include <stdint.h>

#include "cellscribe/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CellscribeLatentCross {
    int32_t num_slots;  /* B, 1..65535 */
    int32_t num_heads;  /* H, 1..64 */
    int32_t num_tokens; /* T, query tokens per slot, 1..4096 */
    int32_t num_genes;  /* S, rows of the memory, 1..65535 */
    int32_t width;      /* m: 64, 128, 256 or 512 */
    float scale;        /* 1 where the queries carry it */
    const void *query;  /* fp16 [B, H, T, m] */
    int64_t query_slot, query_head, query_token;
    const void *memory; /* fp16 [B, S, m] */
    int64_t memory_slot;
    const uint8_t *mask;    /* [B, S], nonzero: attend; null: all */
    int64_t mask_slot;
    const int32_t *lengths; /* [B], rows from there on are padding; null: S */
    void *out;              /* fp16 [B, H, T, m] */
    int64_t out_slot, out_head, out_token;
    /* Optional: mass[b, t - first_token, s] = or += mass_scale * sum over heads of p, for t >= first_token. */
    float *mass;
    int64_t mass_slot, mass_token;
    float mass_scale;
    int32_t mass_add;
    /* Optional: every weight, fp32 [B, H, T - first_token, S]. */
    float *weights;
    int64_t weights_slot, weights_head, weights_token;
    int32_t first_token;
    int32_t num_blocks; /* 0: as the device suggests */
    void *workspace;    /* 16-byte aligned, needs no initialisation */
    int64_t workspace_bytes;
} CellscribeLatentCross;

/* Bytes of workspace for these sizes; pointers are not looked at, but for mass and weights being null or not. */
int64_t cellscribe_latent_cross_workspace(const CellscribeLatentCross *p);
int cellscribe_latent_cross(const CellscribeLatentCross *p, void *stream);

#ifdef __cplusplus
}
#endif
