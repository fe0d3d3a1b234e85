// How the memory comes to shared memory.
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

}  // namespace cellscribe::latent
