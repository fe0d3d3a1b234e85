/* Queries, keys and values as one product gave them: turned by their positions, keys and values put into the cache.
 *
 * Half-split rotary embeddings: element i < D/2 goes with element i + D/2. Token t of slot b is at positions[b] + t. A
 * position outside 0..capacity-1 is not written (its queries are still turned, by the nearest row of the tables).
 */
#pragma once

#include <stdint.h>

#include "cellscribe/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CellscribeRotaryCache {
    int32_t num_slots;    /* B */
    int32_t num_tokens;   /* T, per slot */
    int32_t num_heads;    /* H, query heads */
    int32_t num_kv_heads; /* K */
    int32_t width;        /* D, a multiple of 8, 8..256 */
    int32_t capacity;     /* C, positions of the cache */
    int32_t table_rows;   /* rows of cos and sin */
    const void *qkv;      /* fp16 [B, T, (H + 2K) D]: queries, keys, values */
    int64_t qkv_slot, qkv_token;
    const int32_t *positions; /* [B], where token 0 stands */
    const float *cos, *sin;   /* fp32 [table_rows, D/2] */
    void *out;                /* fp16 [B, H, T, D], turned queries; may be the queries' place in qkv */
    int64_t out_slot, out_head, out_token;
    void *keys, *values; /* fp16 [B, K, C, D] */
    int64_t cache_slot, cache_head, cache_position;
} CellscribeRotaryCache;

int cellscribe_rotary_cache(const CellscribeRotaryCache *p, void *stream);

#ifdef __cplusplus
}
#endif
