/* From rows of counts to binned values, on the CPU: the same bits as engine/cells/feed.py and binning.py give.
 *
 * Logarithms stay with the caller, whose library of mathematics decides their last bit:
 *
 *     select       rows -> entries of the genes fed, and the distinct values of every row, divided by its scale
 *     (caller)     distinct values -> their logarithms
 *     bin          entries and distinct values -> digits
 *     lay_out      digits -> dense rows
 *
 * No function allocates memory, keeps state or starts threads; several threads may call at a time. Compile without
 * -ffast-math and with -ffp-contract=off: a fused multiply-add rounds edges otherwise than NumPy does.
 */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CELLSCRIBE_ROWS_DONE = 0,
    CELLSCRIBE_ROWS_NEED_TOTALS = 1, /* a value is not whole, so the order of the sum matters: give `totals` */
    CELLSCRIBE_ROWS_ARE_ODD = 2      /* a value is not positive and finite, scaled or not, or something is not rising */
};

/* CSR rows; pointers rise from 0, indices lie in [0, num_genes). B: rows; N: entries. */
typedef struct CellscribeCpuRows {
    int64_t num_rows;
    int64_t num_genes;
    const int64_t *indptr;  /* [B + 1] */
    const int32_t *indices; /* [N] */
    const float *data;      /* [N] */
} CellscribeCpuRows;

typedef struct CellscribeCpuSelect {
    CellscribeCpuRows rows;
    const uint8_t *is_fed;         /* [num_genes], 1 or 0 */
    const int32_t *slot_of_column; /* [num_genes], where is_fed */
    double target_sum;             /* values are divided by float(total of the row / target_sum); 0: they are not */
    const double *totals;          /* [B], or null: whole values are added up here */
    void *scratch;                 /* 16 bytes for each entry of the longest row */
    int64_t *indptr;               /* out [B + 1]: M entries are fed */
    int32_t *slots;                /* out [M], at most N */
    int32_t *codes;                /* out [M]: index into `distinct` */
    int64_t *distinct_indptr;      /* out [B + 1]: D distinct values */
    float *distinct;               /* out [D], rising before the division in every row; at most N */
    int32_t *counts;               /* out [D]: entries that have the value */
} CellscribeCpuSelect;

typedef struct CellscribeCpuBin {
    int64_t num_rows;
    int64_t num_edges;              /* at most 1024 */
    const int64_t *indptr;          /* [B + 1] */
    const int32_t *slots;           /* [M] */
    const int32_t *codes;           /* [M] */
    const int64_t *distinct_indptr; /* [B + 1] */
    const float *distinct;          /* [D] finite, at least 0 */
    const int32_t *counts;          /* [D] */
    const double *shares;           /* [num_edges], rising from 0 to 1: which quantiles the edges are */
    const int64_t *tokens;          /* [slots]: token id, the counter of the draw */
    const uint64_t *keys;           /* [B] stream keys of the draws */
    void *scratch;                  /* as above */
    float *digits;                  /* out [M] */
} CellscribeCpuBin;

typedef struct CellscribeCpuLayOut {
    int64_t num_rows;
    int64_t width;         /* S, the first of them for `first` */
    const int64_t *indptr; /* [B + 1] */
    const int64_t *slots;  /* [M], less than S - 1 */
    const float *values;   /* [M] */
    float first;
    float *out; /* [B, S]; zero where a row has no value */
} CellscribeCpuLayOut;

/* Sizes of the structs, to tell a library of another release. */
int64_t cellscribe_cpu_binning_fingerprint(void);
/* 1 where columns lie in range and rise within every row and all values are positive and finite, else 0. */
int cellscribe_cpu_rows_are_plain(const CellscribeCpuRows *p);
int cellscribe_cpu_select(const CellscribeCpuSelect *p);
int cellscribe_cpu_bin(const CellscribeCpuBin *p);
int cellscribe_cpu_lay_out(const CellscribeCpuLayOut *p);
/* BLAKE2b of 8 bytes of every name; text holds them one after the other, each ended by a zero byte. */
int cellscribe_cpu_cell_keys(int64_t num_names, const char *text, uint64_t *keys);

#ifdef __cplusplus
}
#endif
