// BLAKE2b without a key (RFC 7693), for the 64-bit identities of cells.
#pragma once

#include <cstdint>
#include <cstring>

namespace cellscribe::binning {

inline uint64_t rotated(uint64_t x, int by) { return (x >> by) | (x << (64 - by)); }

// Mixes one block of 128 bytes into the state; `length` bytes were taken, this block's among them.
inline void blake2b_block(uint64_t (&state)[8], const uint8_t *block, uint64_t length, bool is_last) {
    static constexpr uint64_t kStart[8] = {0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B,
                                           0xA54FF53A5F1D36F1, 0x510E527FADE682D1, 0x9B05688C2B3E6C1F,
                                           0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179};
    static constexpr uint8_t kOrder[10][16] = {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
                                               {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
                                               {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
                                               {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
                                               {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
                                               {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
                                               {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
                                               {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
                                               {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
                                               {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};
    uint64_t m[16], v[16];
    for (int i = 0; i < 16; ++i) {
        m[i] = 0;
        for (int byte = 7; byte >= 0; --byte) m[i] = m[i] << 8 | block[8 * i + byte];
    }
    for (int i = 0; i < 8; ++i) v[i] = state[i], v[i + 8] = kStart[i];
    v[12] ^= length;
    if (is_last) v[14] = ~v[14];
    const auto mix = [&v](int a, int b, int c, int d, uint64_t x, uint64_t y) {
        v[a] += v[b] + x;
        v[d] = rotated(v[d] ^ v[a], 32);
        v[c] += v[d];
        v[b] = rotated(v[b] ^ v[c], 24);
        v[a] += v[b] + y;
        v[d] = rotated(v[d] ^ v[a], 16);
        v[c] += v[d];
        v[b] = rotated(v[b] ^ v[c], 63);
    };
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC unroll 12  // so that the order of the words is known when it is compiled
#endif
    for (int round = 0; round < 12; ++round) {
        const uint8_t *s = kOrder[round % 10];
        mix(0, 4, 8, 12, m[s[0]], m[s[1]]);
        mix(1, 5, 9, 13, m[s[2]], m[s[3]]);
        mix(2, 6, 10, 14, m[s[4]], m[s[5]]);
        mix(3, 7, 11, 15, m[s[6]], m[s[7]]);
        mix(0, 5, 10, 15, m[s[8]], m[s[9]]);
        mix(1, 6, 11, 12, m[s[10]], m[s[11]]);
        mix(2, 7, 8, 13, m[s[12]], m[s[13]]);
        mix(3, 4, 9, 14, m[s[14]], m[s[15]]);
    }
    for (int i = 0; i < 8; ++i) state[i] ^= v[i] ^ v[i + 8];
}

// The digest of 8 bytes, as a little-endian number.
inline uint64_t blake2b_64(const uint8_t *text, uint64_t length) {
    uint64_t state[8] = {0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
                         0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179};
    state[0] ^= 0x01010000 ^ 8;  // one fan, one level, 8 bytes
    uint64_t taken = 0;
    for (; length - taken > 128; taken += 128) blake2b_block(state, text + taken, taken + 128, false);
    uint8_t last[128] = {};
    if (length > taken) std::memcpy(last, text + taken, length - taken);
    blake2b_block(state, last, length, true);
    return state[0];
}

}  // namespace cellscribe::binning
