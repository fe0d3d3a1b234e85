// Tiles of rows in shared memory, how they come there, and how the tensor cores take them.
#pragma once

#include "attention/task.cuh"

namespace cellscribe::grouped {

// Keeps the compiler from computing x again wherever it is used.
__device__ __forceinline__ int pinned(int x) {
    asm volatile("" : "+r"(x));
    return x;
}

// Keys are given to the columns of a product in an order of our choice: of 32 keys, column n of the 16x8 product
// `block` (0..3) is key 8 (n / 2) + 2 block + n % 2. Lane t of a quad then holds the scores of keys 8t..8t + 7 of its
// row, and their weights, as halves, are 16 bytes that can be stored at once.
__device__ __forceinline__ int key_of(int block, int n) { return n / 2 * 8 + block * 2 + n % 2; }

// A tile has rows of kWidth halves in pieces of 16 bytes, which change places within the row: `turn` is one-to-one (for
// 64-byte rows: with row % 2) on eight neighbouring rows and on the eight keys of a product, so neither share a bank.
template <int kWidth>
__device__ __forceinline__ int turn(int row) {
    const int spread = (row >> 3 ^ row >> 1) & 3;
    return kWidth == 32 ? spread : spread << 1 | (row & 1);
}
template <int kWidth>
__device__ __forceinline__ int piece_at(int row, int piece) {
    return row * (2 * kWidth) + ((piece ^ turn<kWidth>(row)) << 4);  // bytes
}

// From the place of a piece to that `rows` further and with `flip` over its number, at the cost of one exclusive or:
// none of the bits of `rows` may be set in the row so far.
template <int kWidth>
__device__ __forceinline__ int moved(int place, int rows, int flip = 0) {
    return (place ^ (turn<kWidth>(rows) ^ flip) << 4) + rows * (2 * kWidth);
}

// Brings kRows rows of keys or values at a time to shared memory; `thread` of kThreads has the same piece of every
// kStep-th row. Rows whose bit is not set become zeros and are not read.
template <int kWidth, int kRows, int kThreads>
struct RowCopier {
    static constexpr int kPieces = kWidth / 8, kStep = kThreads / kPieces, kWords = kRows / 32;
    static_assert(kThreads % kPieces == 0 && kStep <= 32 && kRows % 32 == 0);
    int row, piece, place;
    const half* next;
    int64_t step;

    __device__ __forceinline__ RowCopier(const half* from, int64_t stride, int first, int thread)
        : row(thread / kPieces), piece(thread % kPieces), place(pinned(piece_at<kWidth>(row, piece))),
          next(from + (first + row) * stride + piece * 8), step(stride * kStep) {}

    // bits: the words of these rows, shifted so that bit 0 is this thread's first row.
    __device__ __forceinline__ void start(unsigned char* to, const uint32_t (&bits)[kWords]) {
#pragma unroll
        for (int i = 0; i < kRows / kStep; ++i, next += step)
            copy_async_16(to + moved<kWidth>(place, i * kStep), next, bits[i * kStep / 32] >> i * kStep % 32 & 1);
    }
    __device__ __forceinline__ void skip(int tiles) { next += tiles * (kRows / kStep) * step; }
};

// Keys and their values, with the words that say which of them are wanted.
template <int kWidth, int kRows, int kThreads>
struct PairCopier {
    using Copier = RowCopier<kWidth, kRows, kThreads>;
    Copier keys, values;
    bool has_piece;

    __device__ __forceinline__ PairCopier(const Task& a, int slot, int kv_head, int first, int thread)
        : keys(static_cast<const half*>(a.p.key) + slot * a.p.key_slot + kv_head * a.p.key_head, a.p.key_row, first,
               thread),
          values(static_cast<const half*>(a.p.value) + slot * a.p.value_slot + kv_head * a.p.value_head, a.p.value_row,
                 first, thread),
          has_piece(keys.piece * 8 < a.p.head_width) {}

    // Start on the next kRows rows: keys to `stage`, values behind them.
    __device__ __forceinline__ void start(unsigned char* stage, const uint32_t* words) {
        uint32_t bits[Copier::kWords];
#pragma unroll
        for (int i = 0; i < Copier::kWords; ++i) bits[i] = has_piece ? words[i] >> keys.row : 0;
        keys.start(stage, bits);
        values.start(stage + kRows * kWidth * 2, bits);
    }
    __device__ __forceinline__ void skip(int tiles) { keys.skip(tiles), values.skip(tiles); }
};

// Query rows first_row .. first_row + kRows - 1, of which there are `count`.
template <int kWidth, int kRows, int kThreads>
__device__ __forceinline__ void copy_queries(unsigned char* to, const Task& a, int slot, int kv_head, int first_row,
                                             int count) {
    constexpr int kPieces = kWidth / 8;
    for (int i = threadIdx.x; i < kRows * kPieces; i += kThreads) {
        const int row = i / kPieces, piece = i % kPieces;
        const bool keep = row < count && piece * 8 < a.p.head_width;
        const half* from = query_row(a, slot, kv_head, first_row + (keep ? row : 0)) + (keep ? piece * 8 : 0);
        copy_async_16(to + piece_at<kWidth>(row, piece), from, keep);
    }
}

// Rows first .. first + 15 as the left side of products over the width.
template <int kWidth>
__device__ __forceinline__ void load_queries(uint32_t (&q)[kWidth / 16][4], const unsigned char* tile, int first) {
    const int lane = threadIdx.x % 32, row = first + lane % 16;
#pragma unroll
    for (int c = 0; c < kWidth / 16; ++c) load_matrix_x4(q[c], tile + piece_at<kWidth>(row, 2 * c + lane / 16));
}

// Where in a tile the row lies that this lane brings to the first product: computed once, moved() from there.
template <int kWidth>
__device__ __forceinline__ int key_place_of() {
    const int lane = threadIdx.x % 32;
    return pinned(piece_at<kWidth>(key_of(lane / 16, lane % 8), lane / 8 % 2));
}
template <int kWidth>
__device__ __forceinline__ int value_place_of() {
    const int lane = threadIdx.x % 32;
    return pinned(piece_at<kWidth>(key_of(lane / 8 % 2, lane % 8), lane / 16));
}

// s[r][4 group + block] += queries of row tile r times 32 keys per group. Blocks 2i and 2i + 1 come in one load.
template <int kWidth, int kRowTiles, int kBlocks>
__device__ __forceinline__ void score(float (&s)[kRowTiles][kBlocks][4], const uint32_t (&q)[kRowTiles][kWidth / 16][4],
                                      const unsigned char* keys, int place) {
#pragma unroll
    for (int c = 0; c < kWidth / 16; ++c) {
#pragma unroll
        for (int i = 0; i < kBlocks / 2; ++i) {
            uint32_t b[4];
            load_matrix_x4(b, keys + moved<kWidth>(place, i / 2 * 32 + i % 2 * 4, 2 * c));
#pragma unroll
            for (int r = 0; r < kRowTiles; ++r) {
                mma_16x8x16(s[r][2 * i], q[r][c], b[0], b[1]);
                mma_16x8x16(s[r][2 * i + 1], q[r][c], b[2], b[3]);
            }
        }
    }
}

// o[r] += weights of row tile r times values; w[r][block] is rows g and g + 8 of the weights, packed.
template <int kWidth, int kRowTiles, int kBlocks>
__device__ __forceinline__ void mix(float (&o)[kRowTiles][kWidth / 8][4], const uint32_t (&w)[kRowTiles][kBlocks][2],
                                    const unsigned char* values, int place) {
#pragma unroll
    for (int i = 0; i < kBlocks / 2; ++i) {
#pragma unroll
        for (int c = 0; c < kWidth / 16; ++c) {
            uint32_t b[4];
            load_matrix_x4_transposed(b, values + moved<kWidth>(place, i / 2 * 32 + i % 2 * 4, 2 * c));
#pragma unroll
            for (int r = 0; r < kRowTiles; ++r) {
                const uint32_t left[4] = {w[r][2 * i][0], w[r][2 * i][1], w[r][2 * i + 1][0], w[r][2 * i + 1][1]};
                mma_16x8x16(o[r][2 * c], left, b[0], b[1]);
                mma_16x8x16(o[r][2 * c + 1], left, b[2], b[3]);
            }
        }
    }
}

}  // namespace cellscribe::grouped
