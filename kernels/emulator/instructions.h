// The instructions of common/ptx.cuh, as the PTX manual describes them.
#pragma once

namespace cellscribe {

inline void copy_async_16(void* shared, const void* global, bool keep) {
    auto* block = emulator::Block::current();
    if (!block->is_shared(shared, 16)) emulator::fail("a copy leaves shared memory");
    if (reinterpret_cast<uintptr_t>(shared) % 16 || (keep && reinterpret_cast<uintptr_t>(global) % 16))
        emulator::fail("a copy of 16 bytes is not aligned to them");
    emulator::Copy copy{shared, {}};
    if (keep) std::memcpy(copy.bytes, global, 16);
    std::memset(shared, 0xff, 16);  // what is there now must not be read before the copy is waited for
    block->running->open_copies.push_back(copy);
}

inline void copy_async_commit() {
    auto* thread = emulator::Block::current()->running;
    thread->groups.push_back(std::move(thread->open_copies));
    thread->open_copies.clear();
}

template <int kLeft>
inline void copy_async_wait() {
    auto& groups = emulator::Block::current()->running->groups;
    while (int(groups.size()) > kLeft) {
        for (const auto& copy : groups.front()) std::memcpy(copy.target, copy.bytes, 16);
        groups.pop_front();
    }
}

struct MatrixLoad {
    uint32_t* r;
    const void* row;
};

inline void load_matrices(uint32_t (&r)[4], const void* row, bool transposed, const void* purpose) {
    auto* block = emulator::Block::current();
    if (!block->is_shared(row, 16)) emulator::fail("a matrix row lies outside shared memory");
    if (reinterpret_cast<uintptr_t>(row) % 16) emulator::fail("a matrix row is not aligned to 16 bytes");
    MatrixLoad mine{r, row};
    block->meet(&mine, purpose, [transposed](void** brought) {
        for (int matrix = 0; matrix < 4; ++matrix) {
            uint16_t cell[8][8];
            for (int i = 0; i < 8; ++i)
                std::memcpy(cell[i], static_cast<MatrixLoad*>(brought[8 * matrix + i])->row, 16);
            for (int lane = 0; lane < 32; ++lane) {
                const int g = lane / 4, t = lane % 4;
                const uint16_t low = transposed ? cell[2 * t][g] : cell[g][2 * t];
                const uint16_t high = transposed ? cell[2 * t + 1][g] : cell[g][2 * t + 1];
                static_cast<MatrixLoad*>(brought[lane])->r[matrix] = low | uint32_t(high) << 16;
            }
        }
    });
}

inline void load_matrix_x4(uint32_t (&r)[4], const void* row) {
    static const char purpose = 0;
    load_matrices(r, row, false, &purpose);
}

inline void load_matrix_x4_transposed(uint32_t (&r)[4], const void* row) {
    static const char purpose = 0;
    load_matrices(r, row, true, &purpose);
}

struct Product {
    float* d;
    const uint32_t* a;
    uint32_t b[2];
};

inline float half_of(uint32_t word, int which) {
    const auto bits = uint16_t(word >> (16 * which));
    half value;
    std::memcpy(&value, &bits, 2);
    return __half2float(value);
}

inline void mma_16x8x16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    static const char purpose = 0;
    Product mine{d, a, {b0, b1}};
    emulator::Block::current()->meet(&mine, &purpose, [](void** brought) {
        float left[16][16], right[8][16];
        for (int lane = 0; lane < 32; ++lane) {
            const auto& one = *static_cast<Product*>(brought[lane]);
            const int g = lane / 4, t = lane % 4;
            for (int i = 0; i < 4; ++i)
                for (int j = 0; j < 2; ++j) left[g + 8 * (i % 2)][2 * t + 8 * (i / 2) + j] = half_of(one.a[i], j);
            for (int i = 0; i < 2; ++i)
                for (int j = 0; j < 2; ++j) right[g][2 * t + 8 * i + j] = half_of(one.b[i], j);
        }
        for (int lane = 0; lane < 32; ++lane) {
            auto& one = *static_cast<Product*>(brought[lane]);
            const int g = lane / 4, t = lane % 4;
            for (int i = 0; i < 4; ++i) {
                float sum = 0;
                const float *x = left[g + 8 * (i / 2)], *y = right[2 * t + i % 2];
                for (int k = 0; k < 16; ++k) sum += x[k] * y[k];
                one.d[i] += sum;
            }
        }
    });
}

inline float fast_exp2(float x) { return std::exp2(x); }

}  // namespace cellscribe
