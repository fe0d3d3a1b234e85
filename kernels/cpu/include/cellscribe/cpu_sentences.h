/* From rows of expression to genes by falling value, on the CPU: the order that engine/sentences/ranked.py gives.
 *
 * Equal values are ordered by a draw that depends on the cell and the gene alone. No function allocates memory, keeps
 * state or starts threads; several threads may call at a time. */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CELLSCRIBE_SENTENCES_RELEASE = 2, /* counted up when the sizes below stay and their meaning does not */
    CELLSCRIBE_NAME_SLACK = 16,       /* bytes that are moved of a name at once */
    CELLSCRIBE_RANK_BYTES = 40,       /* of room for an entry */
    CELLSCRIBE_RANKED = 0,
    CELLSCRIBE_RANK_IS_ODD = 1 /* a value is not positive and finite */
};

/* CSR rows; pointers rise from 0, indices lie in [0, genes). B: rows; N: entries. */
typedef struct CellscribeCpuRank {
    int64_t num_rows;
    const int64_t *indptr;    /* [B + 1] */
    const int32_t *indices;   /* [N] */
    const float *data;        /* [N] */
    const uint64_t *gene_keys; /* [genes] */
    const uint64_t *row_keys; /* [B] stream keys of the draws */
    void *scratch;            /* CELLSCRIBE_RANK_BYTES for each entry of the longest row, aligned to 8 */
    const int64_t *kept;      /* [B + 1]: where the first genes of a row go, as many as are wanted and there are */
    int32_t *genes;           /* out [kept[B]] */
    float *values;            /* out [kept[B]] */
} CellscribeCpuRank;

/* Rows as above. */
typedef struct CellscribeCpuTally {
    int64_t num_rows;
    const int64_t *indptr;
    const int32_t *indices;
    const float *data;
    double *totals;     /* out [B] */
    int64_t *num_cells; /* [genes], counted up by the rows that have an entry of the gene */
} CellscribeCpuTally;

/* Names of genes, each followed by a space, one after the other; `starts` [genes + 1]. For join, CELLSCRIBE_NAME_SLACK
 * bytes follow that may be read. */
typedef struct CellscribeCpuJoin {
    int64_t num_rows;
    const int64_t *indptr;  /* [B + 1] */
    const int32_t *genes;   /* [indptr[B]] */
    const char *names;
    const int64_t *starts;
    char *text;             /* out [ends[B] + CELLSCRIBE_NAME_SLACK], or null: only `ends` are wanted */
    int64_t *ends;          /* out [B + 1]: row b is text[ends[b] .. ends[b + 1]), without a last space */
} CellscribeCpuJoin;

/* Sentences as UTF-8, upper-cased, one after the other; a table made by cellscribe_cpu_words. */
typedef struct CellscribeCpuClean {
    int64_t num_rows;
    const char *text;
    const int64_t *starts;      /* [B + 1] */
    const char *names;          /* as above */
    const int64_t *name_starts;
    const int32_t *table;       /* [table_size] */
    int64_t table_size;         /* a power of two */
    int32_t *genes;             /* out: columns, -1 for a word that is no gene; room for all words */
    int64_t *indptr;            /* out [B + 1] */
    int64_t *num_replaced;      /* out [B] */
    int32_t *counts;            /* mentions of every gene, all 0; left so */
    int32_t *first;             /* room for the genes of the longest sentence */
} CellscribeCpuClean;

int64_t cellscribe_cpu_sentences_fingerprint(void);
int cellscribe_cpu_rank(const CellscribeCpuRank *p);
int cellscribe_cpu_tally(const CellscribeCpuTally *p);
int cellscribe_cpu_join(const CellscribeCpuJoin *p);
/* Fills a table [size], a power of two above the number of names, with the place of every name. */
int cellscribe_cpu_words(const char *names, const int64_t *starts, int64_t count, int32_t *table, int64_t size);
int cellscribe_cpu_clean(const CellscribeCpuClean *p);

#ifdef __cplusplus
}
#endif
