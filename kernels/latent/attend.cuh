// The attention itself: persistent blocks, each with an equal share of all (slot, row tile, memory tile) items.
#pragma once

#include "latent/shape.cuh"

namespace cellscribe::latent {

// Brings memory tiles to shared memory, kStages - 2 ahead of the scores; runs across the borders of units.
template <class Shape>
struct Loader {
    const Params& a;
    unsigned char* memory;
    uint8_t* flags;  // [kFlags][kTile], nonzero: attend
    int64_t next, end;
    int issued = 0;
    uint8_t coming = 0;  // the flag of this thread's row in the tile after the next

    __device__ __forceinline__ uint8_t flag(int64_t item) const {
        const int row = int(threadIdx.x);
        if (item >= end || row >= Shape::kTile) return 0;
        const int slot = int(item / a.tiles) / a.row_tiles;
        const int s = int(item % a.tiles) * Shape::kTile + row;
        if (s >= rows_of_memory(a, slot)) return 0;
        return a.p.mask ? a.p.mask[int64_t(slot) * a.p.mask_slot + s] : 1;
    }
    __device__ __forceinline__ void keep(int number, uint8_t value) {
        if (int(threadIdx.x) < Shape::kTile) flags[number % Shape::kFlags * Shape::kTile + threadIdx.x] = value;
    }
    __device__ __forceinline__ void start() {
        keep(0, flag(next));
        coming = flag(next + 1);
    }
    // The flags of this tile were stored before the last barrier.
    __device__ __forceinline__ void issue() {
        keep(issued + 1, coming);
        coming = flag(next + 2);
        if (next < end) {
            const int slot = int(next / a.tiles) / a.row_tiles;
            const int first = int(next % a.tiles) * Shape::kTile;
            const half* from = static_cast<const half*>(a.p.memory) + int64_t(slot) * a.p.memory_slot;
            unsigned char* to = memory + issued % Shape::kStages * Shape::kTile * Shape::kMemoryRow;
            const uint8_t* wanted = flags + issued % Shape::kFlags * Shape::kTile;
            constexpr int kPieces = Shape::kWidth / 8;
#pragma unroll
            for (int i = 0; i < Shape::kTile * kPieces / Shape::kThreads; ++i) {
                const int piece = int(threadIdx.x) + i * Shape::kThreads;
                const int row = piece / kPieces, column = piece % kPieces;
                const bool keep_row = wanted[row] != 0;
                const int64_t offset = keep_row ? int64_t(first + row) * Shape::kWidth + column * 8 : 0;
                copy_async_16(to + row * Shape::kMemoryRow + column * 16, from + offset, keep_row);
            }
        }
        copy_async_commit();
        ++next;
        ++issued;
    }
};

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

template <class Shape>
__global__ void __launch_bounds__(Shape::kThreads, 1) attend(const Params a) {
    CELLSCRIBE_DYNAMIC_SHARED(shared);
    unsigned char* memory = shared;
    float* partial = reinterpret_cast<float*>(memory + Shape::kMemoryBytes);
    unsigned char* probs = reinterpret_cast<unsigned char*>(partial) + Shape::kPartialBytes;
    float* decay = reinterpret_cast<float*>(probs + Shape::kProbBytes);
    float2* state = reinterpret_cast<float2*>(decay + 2 * kRows);
    uint8_t* flags = reinterpret_cast<uint8_t*>(state + kRows);

    const int64_t begin = int64_t(blockIdx.x) * a.per_block, end = min(begin + a.per_block, a.work);
    const int warp = int(threadIdx.x) / 32, my_row = int(threadIdx.x) / Shape::kWarps;
    const float scale = a.p.scale * kLog2e;
    Loader<Shape> loader{a, memory, flags, begin, end};
    loader.start();
    __syncthreads();
    for (int i = 0; i < Shape::kStages - 2; ++i) {
        loader.issue();
        __syncthreads();  // the flags of the next tile
    }

    Accumulator<Shape> sums;
    int number = 0;  // of the tile, in this block
    for (int64_t item = begin; item < end;) {
        const int unit = int(item / a.tiles);
        const int slot = unit / a.row_tiles, row_tile = unit % a.row_tiles;
        const int first_tile = int(item % a.tiles), last_tile = int(min(int64_t(a.tiles), first_tile + end - item));
        const bool scored = row_tile >= a.scored_from;
        const int64_t scored_unit = scored ? int64_t(slot) * a.scored_tiles() + row_tile - a.scored_from : 0;
        sums.load(a, slot, row_tile * kRows);
        Softmax<Shape> softmax;
        for (int tile = first_tile; tile < last_tile; ++tile, ++number) {
            copy_async_wait<Shape::kStages - 3>();
            __syncthreads();  // this tile is there; the last one's probabilities too; the stage before it is free
            loader.issue();
            const unsigned char* here = memory + number % Shape::kStages * Shape::kTile * Shape::kMemoryRow;
            sums.score(here, partial + warp * kRows * Shape::kPartialRow);
            __syncthreads();
            half* kept = nullptr;
            float* kept_maximum = nullptr;
            if (scored) {
                kept = a.probs + (scored_unit * kRows + my_row) * a.tiles * Shape::kTile + tile * Shape::kTile;
                kept_maximum = a.maxima + (scored_unit * a.tiles + tile) * kRows + my_row;
            }
            softmax.take(partial, flags + number % Shape::kFlags * Shape::kTile, scale,
                         probs + number % 2 * kRows * Shape::kProbRow, decay + number % 2 * kRows, kept, kept_maximum);
            if (tile > first_tile) {  // while other warps are still at their softmax
                const int last = number - 1;
                sums.mix(memory + last % Shape::kStages * Shape::kTile * Shape::kMemoryRow,
                         probs + last % 2 * kRows * Shape::kProbRow, decay + last % 2 * kRows);
            }
        }
        const float2 mine = softmax.state();
        if (threadIdx.x % Shape::kWarps == 0) state[my_row] = mine;
        __syncthreads();
        const int last = number - 1;
        sums.mix(memory + last % Shape::kStages * Shape::kTile * Shape::kMemoryRow,
                 probs + last % 2 * kRows * Shape::kProbRow, decay + last % 2 * kRows);
        if (first_tile == 0 && last_tile == a.tiles) {
            store_whole<Shape>(a, sums, state, slot, row_tile * kRows);
            if (int(threadIdx.x) < kRows) a.final_state[int64_t(unit) * kRows + threadIdx.x] = state[threadIdx.x];
        } else {
            const int place = place_of(a, int(blockIdx.x), unit);
            store_partial<Shape>(a, sums, place);
            if (int(threadIdx.x) < kRows) a.partial_state[int64_t(place) * kRows + threadIdx.x] = state[threadIdx.x];
        }
        item += last_tile - first_tile;
    }
    copy_async_wait<0>();
}

}  // namespace cellscribe::latent
