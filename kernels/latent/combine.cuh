// What is left when a unit was shared by several blocks, and the weights that were asked for.
#pragma once

#include "latent/shape.cuh"

namespace cellscribe::latent {

constexpr int kCombineThreads = 128;
constexpr int kCombineWarps = kCombineThreads / 32;

struct Sharers {
    int first, last;  // blocks
};

__device__ __forceinline__ Sharers sharers(const Params& a, int unit) {
    return {block_of(a, int64_t(unit) * a.tiles), block_of(a, int64_t(unit + 1) * a.tiles - 1)};
}

// One warp: what to subtract from maxima (base 2) and the sum of a row over the whole memory.
__device__ __forceinline__ float2 final_state(const Params& a, int unit, int row) {
    const Sharers blocks = sharers(a, unit);
    if (blocks.first == blocks.last) {
        const float2 whole = a.final_state[int64_t(unit) * kRows + row];
        return make_float2(whole.x == -INFINITY ? 0.0f : whole.x, whole.y);
    }
    const int lane = threadIdx.x % 32;
    float maximum = -INFINITY;
    bool lost = false;
    for (int block = blocks.first + lane; block <= blocks.last; block += 32) {
        const float one = a.partial_state[int64_t(place_of(a, block, unit)) * kRows + row].x;
        maximum = fmaxf(maximum, one);
        lost |= one != one;
    }
    maximum = __any_sync(0xffffffffu, lost) ? NAN : warp_max(maximum);
    const float base = maximum == -INFINITY ? 0.0f : maximum;
    float sum = 0.0f;
    for (int block = blocks.first + lane; block <= blocks.last; block += 32) {
        const float2 one = a.partial_state[int64_t(place_of(a, block, unit)) * kRows + row];
        sum += one.y * fast_exp2(one.x - base);
    }
    return make_float2(base, warp_sum(sum));
}

// One block a row: the weighted mean of what the blocks of a unit summed; a thread takes two columns at a time.
__device__ __forceinline__ void combine_row(const Params& a, int unit, int local) {
    const Sharers blocks = sharers(a, unit);
    const int row = unit % a.row_tiles * kRows + local;
    if (blocks.first == blocks.last || row >= a.rows) return;
    const float2 all = final_state(a, unit, local);
    const float share = all.y == 0.0f ? 0.0f : 1.0f / all.y;
    half* to = static_cast<half*>(a.p.out) + int64_t(unit / a.row_tiles) * a.p.out_slot +
               (row / a.p.num_heads) * a.p.out_token + (row % a.p.num_heads) * a.p.out_head;
    for (int column = 2 * int(threadIdx.x); column < a.p.width; column += 2 * kCombineThreads) {
        float low = 0.0f, high = 0.0f;
#pragma unroll 8
        for (int block = blocks.first; block <= blocks.last; ++block) {
            const int64_t at = int64_t(place_of(a, block, unit)) * kRows + local;
            const float weight = fast_exp2(a.partial_state[at].x - all.x);
            const float2 two = *reinterpret_cast<const float2*>(a.partial_out + at * a.p.width + column);
            low += weight * two.x, high += weight * two.y;
        }
        *reinterpret_cast<uint32_t*>(to + column) = pack_halves(low * share, high * share);
    }
}

// Weights of one token over kCombineThreads neighbouring genes: per head where asked, and summed over the heads.
template <int kTile>
__device__ __forceinline__ void weigh(const Params& a, int slot, int token, int piece) {
    __shared__ float2 states[64];
    const int heads = a.p.num_heads, s = piece * kCombineThreads + int(threadIdx.x);
    for (int h = int(threadIdx.x) / 32; h < heads; h += kCombineWarps) {
        const int row = token * heads + h;
        const float2 all = final_state(a, slot * a.row_tiles + row / kRows, row % kRows);
        if (threadIdx.x % 32 == 0) states[h] = make_float2(all.x, all.y == 0.0f ? 0.0f : 1.0f / all.y);
    }
    __syncthreads();
    if (s >= a.p.num_genes) return;
    constexpr int kAhead = 8;  // heads whose loads are on their way together
    float mass = 0.0f;
    for (int first = 0; first < heads; first += kAhead) {
        float maxima[kAhead], probs[kAhead];
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
            const int row = token * heads + min(first + i, heads - 1);
            const int64_t unit = int64_t(slot) * a.scored_tiles() + row / kRows - a.scored_from;
            maxima[i] = a.maxima[(unit * a.tiles + s / kTile) * kRows + row % kRows];
            probs[i] = __half2float(a.probs[(unit * kRows + row % kRows) * a.tiles * kTile + s]);
        }
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
            const int h = first + i;
            if (h >= heads) break;
            const float weight = probs[i] * (fast_exp2(maxima[i] - states[h].x) * states[h].y);
            mass += weight;
            if (a.p.weights)
                a.p.weights[int64_t(slot) * a.p.weights_slot + h * a.p.weights_head +
                            (token - a.p.first_token) * a.p.weights_token + s] = weight;
        }
    }
    if (!a.p.mass) return;
    float* to = a.p.mass + int64_t(slot) * a.p.mass_slot + (token - a.p.first_token) * a.p.mass_token + s;
    *to = a.p.mass_scale * mass + (a.p.mass_add ? *to : 0.0f);
}

// Blocks of the grid's first part combine rows, those of its second weigh genes.
template <int kTile>
__global__ void __launch_bounds__(kCombineThreads, 8) combine(const Params a, unsigned row_blocks, unsigned pieces) {
    if (blockIdx.x < row_blocks) {
        combine_row(a, int(blockIdx.x / kRows), int(blockIdx.x % kRows));
    } else {
        const unsigned at = blockIdx.x - row_blocks, tokens = unsigned(a.p.num_tokens - a.p.first_token);
        weigh<kTile>(a, int(at / pieces / tokens), int(a.p.first_token + at / pieces % tokens), int(at % pieces));
    }
}

}  // namespace cellscribe::latent
