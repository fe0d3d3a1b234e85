/* From rows of expression to token ids by falling expression relative to each gene's median, on the CPU: what
 * engine/ranks/tokens.py gives. The function allocates no memory, keeps no state and starts no threads; several threads
 * may call at a time. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CELLSCRIBE_RANKS_RELEASE = 1,    /* counted up when the sizes below stay and their meaning does not */
    CELLSCRIBE_RANK_TOKEN_BYTES = 32 /* of room for an entry */
};

/* CSR rows; pointers rise from 0, indices lie in [0, genes), values are positive and finite. B: rows; N: entries. */
typedef struct CellscribeCpuRankTokens {
    int64_t num_rows;
    const int64_t *indptr;  /* [B + 1] */
    const int32_t *indices; /* [N] */
    const float *data;      /* [N] counts, or null */
    const double *linear;   /* [N] in their place: values that no total divides */
    const double *totals;   /* [B] of counts */
    int64_t is_single;      /* counts are divided and scaled in float32, as stored, and widened for the medians */
    double target_sum;
    const int32_t *tokens;  /* [genes], -1 for genes that are left out */
    const double *medians;  /* [genes], above 0 where there is a token */
    int64_t most;           /* tokens of a row at most */
    void *scratch;          /* CELLSCRIBE_RANK_TOKEN_BYTES for each entry of the longest row, aligned to 8 */
    int64_t *indptr_out;    /* out [B + 1] */
    int64_t *out;           /* out [indptr_out[B]]; room for `most` or the length of each row, whichever is less */
} CellscribeCpuRankTokens;

int64_t cellscribe_cpu_ranks_fingerprint(void);
void cellscribe_cpu_rank_tokens(const CellscribeCpuRankTokens *p);

#ifdef __cplusplus
}
#endif
