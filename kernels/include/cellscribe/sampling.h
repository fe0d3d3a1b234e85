/* One step of choosing tokens, and of moving the slots on.
 *
 * A slot that runs gets the most probable token (temperature 0, the lowest id among equals), or a draw from the
 * smallest set of most probable tokens whose mass reaches top_p, ties to the lower id. The random number of a draw is
 * the keyed number `lengths[b]` of the stream `keys[b]`: engine/keyed.py and engine/decode/sampling.py say the same on
 * the CPU. Weights are summed as integers, so that equal logits give equal tokens whatever the order of the threads.
 *
 * With temperatures and top_ps each slot is chosen by its own, as if they were the scalars, which are not looked at. They
 * are read when the kernel runs, so that a captured launch follows them; the host cannot check their values.
 *
 * State in: finished, lengths, keys. State out, for a slot that ran: lengths + 1; tokens = what the next step feeds (0
 * where the choice is lost); positions = prompt_len + lengths before, where that token stands; finished where the token
 * is one of eos_ids, or the choice is lost, or lengths reached max_new_tokens. A slot that was finished says -2 with
 * log-probability 0, and nothing else of it changes.
 */
#pragma once

#include <stdint.h>

#include "cellscribe/status.h"
#include "cellscribe/types.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CELLSCRIBE_NOT_FINITE = -1, /* a choice is lost: logits hold NaN or +inf, or nothing but -inf */
    CELLSCRIBE_SILENT = -2      /* the slot was finished before */
};

typedef struct CellscribeSample {
    int32_t num_slots;      /* B, 1 or more */
    int32_t vocabulary;     /* V, 1..2^22 */
    int32_t logits_type;    /* CELLSCRIBE_FP16 or CELLSCRIBE_FP32 */
    int32_t prompt_len;
    int32_t max_new_tokens; /* 1 or more */
    int32_t num_eos;        /* 0 or more */
    float temperature;      /* 0: greedy; that of all slots */
    double top_p;           /* above 0, at most 1; not looked at where greedy */
    const void *logits;     /* [B, V] */
    int64_t logits_slot;    /* stride in elements */
    const uint64_t *keys;   /* stream keys [B]; may be null where greedy */
    const int32_t *eos_ids; /* [num_eos] */
    uint8_t *finished;      /* [B], in and out */
    int32_t *lengths;       /* [B], in and out: tokens that the text has */
    int64_t *tokens;        /* [B], out */
    int32_t *positions;     /* [B], out */
    int32_t *chosen;        /* [B], out: a token id, CELLSCRIBE_NOT_FINITE or CELLSCRIBE_SILENT */
    float *logprobs;        /* [B], out: natural, before temperature and top-p; NaN where lost */
    const float *temperatures; /* [B], or null: the scalars count */
    const double *top_ps;      /* [B], null where temperatures is */
} CellscribeSample;

int cellscribe_sample(const CellscribeSample *p, void *stream);

#ifdef __cplusplus
}
#endif
