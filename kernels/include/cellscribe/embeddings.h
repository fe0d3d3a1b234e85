/* Rows of a table by their numbers. Ids outside the table are clamped to it: nothing is ever read beyond. */
#pragma once

#include <stdint.h>

#include "cellscribe/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CellscribeEmbed {
    int32_t num_rows;
    int32_t width;
    int32_t table_rows;
    int32_t out_fp32;  /* nonzero: out is fp32, else fp16 */
    const void *table; /* fp16 [table_rows, width] */
    int64_t table_row;
    const int64_t *ids; /* [rows] */
    void *out;          /* [rows, width] */
    int64_t out_row;
} CellscribeEmbed;

int cellscribe_embed(const CellscribeEmbed *p, void *stream);

#ifdef __cplusplus
}
#endif
