/* Attention of grouped query heads to keys and values: a decoder's own tokens, an encoder's genes, a cell's memory.
 *
 * For every slot b, head h and token t: p = softmax over s of scale * query . key[s], out = sum over s of p[s] times
 * value[s]; head h reads kv head h / (H / K). Key s takes part where s < lengths[b], mask[b, s] is nonzero and
 * s <= positions[b] + t, as far as these are given. Strides are in elements; the last axis is contiguous; rows of
 * query, key, value and out are 16-byte aligned. Rows of key and value that no token attends to are not read: they may
 * hold anything. A token with nothing to attend to gives zeros. What is launched does not depend on lengths, mask and
 * positions, so a CUDA graph may hold the call while they change. A slot's result depends on the sizes below and on
 * its own data, not on other slots and not on timing: equal inputs on one device give equal bits.
 */
#pragma once

#include <stdint.h>

#include "cellscribe/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CellscribeGroupedAttention {
    int32_t num_slots;    /* B, 1..65535 */
    int32_t num_heads;    /* H, 1..128, a multiple of K */
    int32_t num_kv_heads; /* K */
    int32_t num_tokens;   /* T, query tokens per slot, 1..65535 */
    int32_t num_keys;     /* C, rows of keys and values per slot, 1..65535 */
    int32_t head_width;   /* D, a multiple of 8 up to 128 */
    float scale;          /* above zero */
    const void *query;    /* fp16 [B, H, T, D] */
    int64_t query_slot, query_head, query_token;
    const void *key;      /* fp16 [B, K, C, D] */
    int64_t key_slot, key_head, key_row;
    const void *value;    /* fp16 [B, K, C, D] */
    int64_t value_slot, value_head, value_row;
    const uint8_t *mask;  /* [B, C], nonzero: attend; null: all */
    int64_t mask_slot;
    const int32_t *lengths;   /* [B], rows from there on are padding; null: C */
    const int32_t *positions; /* [B], of the first token among the keys: token t sees keys 0..positions[b] + t;
                                 null: every token sees all */
    void *out;                /* fp16 [B, H, T, D] */
    int64_t out_slot, out_head, out_token;
    /* Optional: mass[b, t - first_token, s] = or += mass_scale * sum over heads of p, for t >= first_token. */
    float *mass;
    int64_t mass_slot, mass_token;
    float mass_scale;
    int32_t mass_add;
    /* Optional: every weight, fp32 [B, H, T - first_token, C]. */
    float *weights;
    int64_t weights_slot, weights_head, weights_token;
    int32_t first_token; /* 0..T */
    int32_t num_blocks;  /* that few query tokens should be spread over; 0: as the device suggests */
    void *workspace;     /* 16-byte aligned, needs no initialisation; null where 0 bytes are asked for */
    int64_t workspace_bytes;
} CellscribeGroupedAttention;

/* Bytes of workspace for these sizes, 0 if they are not supported; pointers are not looked at, but for mass and weights
 * being null or not. */
int64_t cellscribe_grouped_attention_workspace(const CellscribeGroupedAttention *p);
int cellscribe_grouped_attention(const CellscribeGroupedAttention *p, void *stream);

#ifdef __cplusplus
}
#endif
