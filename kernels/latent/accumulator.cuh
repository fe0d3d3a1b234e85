// The two products of a block, in the registers of its warps, and where the results go.
#pragma once

#include "latent/shape.cuh"

namespace cellscribe::latent {

template <class Shape>
struct Accumulator {
    static constexpr int kSteps = Shape::kDims / 16;   // k16 steps of the scores
    static constexpr int kPieces = Shape::kDims / 8;   // n8 pieces of the output
    uint32_t query[2][kSteps][4];
    float out[2][kPieces][4];

    // Queries of a unit, straight into the fragments of the first product; rows past the end are zeros.
    __device__ __forceinline__ void load(const Params& a, int slot, int first_row) {
        const int lane = threadIdx.x % 32, first = int(threadIdx.x) / 32 * Shape::kDims + lane % 4 * 2;
        const half* from = static_cast<const half*>(a.p.query) + int64_t(slot) * a.p.query_slot;
#pragma unroll
        for (int tile = 0; tile < 2; ++tile)
#pragma unroll
            for (int part = 0; part < 2; ++part) {
                const int row = first_row + 16 * tile + 8 * part + lane / 4;
                const bool real = row < a.rows;
                const half* at = from + (row / a.p.num_heads) * a.p.query_token + (row % a.p.num_heads) * a.p.query_head;
#pragma unroll
                for (int k = 0; k < kSteps; ++k)
#pragma unroll
                    for (int side = 0; side < 2; ++side)
                        query[tile][k][2 * side + part] =
                            real ? *reinterpret_cast<const uint32_t*>(at + first + 16 * k + 8 * side) : 0u;
            }
#pragma unroll
        for (int tile = 0; tile < 2; ++tile)
#pragma unroll
            for (int n = 0; n < kPieces; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) out[tile][n][i] = 0.0f;
    }

    // This warp's share of the scores [kRows, kTile], to be summed over the warps.
    __device__ __forceinline__ void score(const unsigned char* memory, float* partial) const {
        const int lane = threadIdx.x % 32, first = int(threadIdx.x) / 32 * Shape::kDims;
        const unsigned char* at = memory + (lane / 16 * 8 + lane % 8) * Shape::kMemoryRow + 2 * (first + lane / 8 % 2 * 8);
#pragma unroll
        for (int n = 0; n < Shape::kTile / 16; ++n) {
            float sums[2][2][4] = {};
#pragma unroll
            for (int k = 0; k < kSteps; ++k) {
                uint32_t b[4];
                load_matrix_x4(b, at + 16 * n * Shape::kMemoryRow + 32 * k);
#pragma unroll
                for (int tile = 0; tile < 2; ++tile) {
                    mma_16x8x16(sums[tile][0], query[tile][k], b[0], b[1]);
                    mma_16x8x16(sums[tile][1], query[tile][k], b[2], b[3]);
                }
            }
#pragma unroll
            for (int tile = 0; tile < 2; ++tile)
#pragma unroll
                for (int half_ = 0; half_ < 2; ++half_)
#pragma unroll
                    for (int part = 0; part < 2; ++part) {
                        float* to = partial + (16 * tile + 8 * part + lane / 4) * Shape::kPartialRow + 16 * n + 8 * half_ +
                                    lane % 4 * 2;
                        *reinterpret_cast<float2*>(to) =
                            make_float2(sums[tile][half_][2 * part], sums[tile][half_][2 * part + 1]);
                    }
        }
    }

    // out = out * decay + probs [kRows, kTile] memory [kTile, kDims].
    __device__ __forceinline__ void mix(const unsigned char* memory, const unsigned char* probs, const float* decay) {
        const int lane = threadIdx.x % 32, first = int(threadIdx.x) / 32 * Shape::kDims;
#pragma unroll
        for (int tile = 0; tile < 2; ++tile) {
            const float low = decay[16 * tile + lane / 4], high = decay[16 * tile + 8 + lane / 4];
#pragma unroll
            for (int n = 0; n < kPieces; ++n) {
                out[tile][n][0] *= low, out[tile][n][1] *= low;
                out[tile][n][2] *= high, out[tile][n][3] *= high;
            }
        }
        const unsigned char* at = memory + (lane / 8 % 2 * 8 + lane % 8) * Shape::kMemoryRow + 2 * (first + lane / 16 * 8);
#pragma unroll
        for (int k = 0; k < Shape::kTile / 16; ++k) {
            uint32_t weights[2][4];
#pragma unroll
            for (int tile = 0; tile < 2; ++tile)
                load_matrix_x4(weights[tile], probs + (16 * tile + lane % 16) * Shape::kProbRow + 32 * k + lane / 16 * 16);
#pragma unroll
            for (int n = 0; n < kPieces; n += 2) {
                uint32_t b[4];
                load_matrix_x4_transposed(b, at + 16 * k * Shape::kMemoryRow + 16 * n);
#pragma unroll
                for (int tile = 0; tile < 2; ++tile) {
                    mma_16x8x16(out[tile][n], weights[tile], b[0], b[1]);
                    mma_16x8x16(out[tile][n + 1], weights[tile], b[2], b[3]);
                }
            }
        }
    }
};

template <class Shape>
__device__ __forceinline__ void store_whole(const Params& a, const Accumulator<Shape>& sums, const float2* state,
                                            int slot, int first_row) {
    const int lane = threadIdx.x % 32, first = int(threadIdx.x) / 32 * Shape::kDims + lane % 4 * 2;
    half* to = static_cast<half*>(a.p.out) + int64_t(slot) * a.p.out_slot;
#pragma unroll
    for (int tile = 0; tile < 2; ++tile)
#pragma unroll
        for (int part = 0; part < 2; ++part) {
            const int local = 16 * tile + 8 * part + lane / 4, row = first_row + local;
            if (row >= a.rows) continue;
            const float total = state[local].y, share = total == 0.0f ? 0.0f : 1.0f / total;
            half* at = to + (row / a.p.num_heads) * a.p.out_token + (row % a.p.num_heads) * a.p.out_head;
#pragma unroll
            for (int n = 0; n < Accumulator<Shape>::kPieces; ++n)
                *reinterpret_cast<uint32_t*>(at + first + 8 * n) =
                    pack_halves(sums.out[tile][n][2 * part] * share, sums.out[tile][n][2 * part + 1] * share);
        }
}

template <class Shape>
__device__ __forceinline__ void store_partial(const Params& a, const Accumulator<Shape>& sums, int place) {
    const int lane = threadIdx.x % 32, first = int(threadIdx.x) / 32 * Shape::kDims + lane % 4 * 2;
    float* to = a.partial_out + int64_t(place) * kRows * Shape::kWidth + first;
#pragma unroll
    for (int tile = 0; tile < 2; ++tile)
#pragma unroll
        for (int part = 0; part < 2; ++part)
#pragma unroll
            for (int n = 0; n < Accumulator<Shape>::kPieces; ++n)
                *reinterpret_cast<float2*>(to + (16 * tile + 8 * part + lane / 4) * Shape::kWidth + 8 * n) =
                    make_float2(sums.out[tile][n][2 * part], sums.out[tile][n][2 * part + 1]);
}

}  // namespace cellscribe::latent
