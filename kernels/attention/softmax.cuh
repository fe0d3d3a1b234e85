// The running softmax over a row's keys, on scores that lie in the registers of a quad of lanes.
#pragma once

#include "attention/tile.cuh"

namespace cellscribe::grouped {

// The keys of a group that this lane scores for a row: its byte of the word, cut off where the row's own keys end.
__device__ __forceinline__ uint32_t lane_keys(uint32_t word, int keys_left) {
    const int left = keys_left - int(threadIdx.x % 4) * 8;
    const uint32_t own = word >> (threadIdx.x % 4 * 8) & 0xff;
    return left >= 8 ? own : left <= 0 ? 0 : own & ((1u << left) - 1);
}

// Scores of keys that a row does not see become -inf, whatever they are.
template <int kBlocks>
__device__ __forceinline__ void hide(float (&s)[kBlocks][4], int half_of_rows, uint32_t seen, int first_block) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        float* const pair = s[first_block + j] + 2 * half_of_rows;
        if (!(seen >> (2 * j) & 1)) pair[0] = -INFINITY;
        if (!(seen >> (2 * j + 1) & 1)) pair[1] = -INFINITY;
    }
}

__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// What a maximum (base 2) is subtracted as: a row that has seen no key yet must not give -inf - -inf.
__device__ __forceinline__ float base_of(float maximum) { return maximum == -INFINITY ? 0.0f : maximum; }

// Take in the scores of some keys: they become weights, 2^(score - most). `most` (base 2) follows a row's maximum only
// once that has risen by more than kSlack, which halves bear well (weights up to 2^8); so sums seldom need fading.
template <int kRowTiles, int kBlocks, int kColumns>
__device__ __forceinline__ void take_in(float (&s)[kRowTiles][kBlocks][4], float (&o)[kRowTiles][kColumns][4],
                                        float (&most)[kRowTiles][2], float (&sum)[kRowTiles][2], float scale_log2) {
    constexpr float kSlack = 8.0f;
    float fade[kRowTiles][2];
    bool fades = false;
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float top = fmaxf(s[r][0][2 * h], s[r][0][2 * h + 1]);
#pragma unroll
            for (int j = 1; j < kBlocks; ++j) top = fmaxf(top, fmaxf(s[r][j][2 * h], s[r][j][2 * h + 1]));
            top = quad_max(top) * scale_log2;
            const bool rises = top > most[r][h] + kSlack;
            const float now = rises ? top : most[r][h];
            fade[r][h] = fast_exp2(most[r][h] - base_of(now));
            most[r][h] = now;
            fades |= rises;
        }
    if (__any_sync(0xffffffffu, fades)) {
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                sum[r][h] *= fade[r][h];
#pragma unroll
                for (int d = 0; d < kColumns; ++d) o[r][d][2 * h] *= fade[r][h], o[r][d][2 * h + 1] *= fade[r][h];
            }
    }
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float base = base_of(most[r][h]);
            float added[2];
#pragma unroll
            for (int j = 0; j < kBlocks; ++j)
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    float& one = s[r][j][2 * h + e];
                    one = fast_exp2(fmaf(one, scale_log2, -base));
                    added[e] = j ? added[e] + one : one;
                }
            sum[r][h] += added[0] + added[1];
        }
}

template <int kRowTiles, int kBlocks>
__device__ __forceinline__ void pack_weights(uint32_t (&w)[kRowTiles][kBlocks][2],
                                             const float (&s)[kRowTiles][kBlocks][4]) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
        for (int j = 0; j < kBlocks; ++j)
#pragma unroll
            for (int h = 0; h < 2; ++h) w[r][j][h] = pack_halves(s[r][j][2 * h], s[r][j][2 * h + 1]);
}

}  // namespace cellscribe::grouped
