// The softmax of a score row, tile by tile.
#pragma once

#include "latent/shape.cuh"

namespace cellscribe::latent {

// Running softmax of one score row: kWarps neighbouring threads share it, each with kColumns of its columns.
template <class Shape>
struct Softmax {
    float maximum = -INFINITY, sum = 0.0f;  // the sum is this thread's share

    // Sum the warps' scores of a tile, and put p = 2^(score - maximum) and the decay of what came before where all
    // warps find them. `kept` and `kept_maximum` are null where nobody asked for the weights.
    __device__ __forceinline__ void take(const float* partial, const uint8_t* flags, float scale, unsigned char* probs,
                                         float* decay, half* kept, float* kept_maximum) {
        const int row = int(threadIdx.x) / Shape::kWarps, column = int(threadIdx.x) % Shape::kWarps * Shape::kColumns;
        float score[Shape::kColumns];
#pragma unroll
        for (int c = 0; c < Shape::kColumns; ++c) score[c] = 0.0f;
#pragma unroll
        for (int warp = 0; warp < Shape::kWarps; ++warp) {
            const float* from = partial + (warp * kRows + row) * Shape::kPartialRow + column;
            if constexpr (Shape::kColumns % 4 == 0) {
#pragma unroll
                for (int c = 0; c < Shape::kColumns; c += 4) {
                    const float4 four = *reinterpret_cast<const float4*>(from + c);
                    score[c] += four.x, score[c + 1] += four.y, score[c + 2] += four.z, score[c + 3] += four.w;
                }
            } else {
#pragma unroll
                for (int c = 0; c < Shape::kColumns; c += 2) {
                    const float2 two = *reinterpret_cast<const float2*>(from + c);
                    score[c] += two.x, score[c + 1] += two.y;
                }
            }
        }
        float highest = -INFINITY;
        bool lost = false;
#pragma unroll
        for (int c = 0; c < Shape::kColumns; ++c) {
            score[c] = flags[column + c] ? score[c] * scale : -INFINITY;
            lost |= score[c] != score[c];
            highest = fmaxf(highest, score[c]);
        }
        if (lost) highest = NAN;
#pragma unroll
        for (int offset = Shape::kWarps / 2; offset > 0; offset /= 2) {
            const float other = __shfl_xor_sync(0xffffffffu, highest, offset);
            highest = highest != highest || other != other ? NAN : fmaxf(highest, other);  // fmaxf would hide a NaN
        }
        const float now = maximum != maximum || highest != highest ? NAN : fmaxf(maximum, highest);
        const float base = now == -INFINITY ? 0.0f : now;
        const float fading = fast_exp2(maximum - base);
        sum *= fading;
        maximum = now;
        unsigned char* to = probs + row * Shape::kProbRow + 2 * column;
#pragma unroll
        for (int c = 0; c < Shape::kColumns; c += 2) {
            const float low = fast_exp2(score[c] - base), high = fast_exp2(score[c + 1] - base);
            sum += low + high;
            const uint32_t both = pack_halves(low, high);
            *reinterpret_cast<uint32_t*>(to + 2 * c) = both;
            if (kept) *reinterpret_cast<uint32_t*>(kept + column + c) = both;
        }
        if (column == 0) {
            decay[row] = fading;
            if (kept) *kept_maximum = base;
        }
    }

    __device__ __forceinline__ float2 state() const {
        float all = sum;
#pragma unroll
        for (int offset = Shape::kWarps / 2; offset > 0; offset /= 2) all += __shfl_xor_sync(0xffffffffu, all, offset);
        return make_float2(maximum, all);
    }
};

}  // namespace cellscribe::latent
