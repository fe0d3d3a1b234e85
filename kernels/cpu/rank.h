// The distinct values of one row, and which of them every entry has.
#pragma once

#include <cstdint>
#include <cstring>

namespace cellscribe::binning {

constexpr int32_t kSmall = 4096;  // whole values below it are ranked by counting, others by sorting
constexpr int64_t kFewEntries = 40;
constexpr uint32_t kInfinite = 0x7F800000u;

inline uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

inline float float_of(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

// Positive and finite, in one comparison: zero, negative numbers and NaN have bits outside.
inline bool is_plain(float x) { return bits_of(x) - 1u < kInfinite - 1u; }

struct Entry {
    uint32_t bits, place;
};

// Sorts by bits; the second half of `entries` is room.
inline void sort_entries(Entry *entries, int64_t n) {
    if (n <= kFewEntries) {
        for (int64_t i = 1; i < n; ++i) {
            const Entry one = entries[i];
            int64_t j = i;
            for (; j > 0 && entries[j - 1].bits > one.bits; --j) entries[j] = entries[j - 1];
            entries[j] = one;
        }
        return;
    }
    int32_t starts[4][256] = {};
    for (int64_t i = 0; i < n; ++i) {
        for (int byte = 0; byte < 4; ++byte) ++starts[byte][entries[i].bits >> 8 * byte & 255];
    }
    Entry *from = entries, *to = entries + n;
    for (int byte = 0; byte < 4; ++byte) {
        if (starts[byte][from[0].bits >> 8 * byte & 255] == n) continue;
        int32_t next = 0;
        for (int32_t &start : starts[byte]) {
            const int32_t count = start;
            start = next;
            next += count;
        }
        for (int64_t i = 0; i < n; ++i) to[starts[byte][from[i].bits >> 8 * byte & 255]++] = from[i];
        Entry *other = from;
        from = to, to = other;
    }
    if (from != entries) std::memcpy(entries, from, size_t(n) * sizeof(Entry));
}

// By counting, for whole values below kSmall; the tables are empty between rows.
struct Counter {
    int32_t table[kSmall] = {};
    uint64_t present[kSmall / 64] = {};

    // `codes` holds the values at first, and then the places of their distinct values, from `base` on.
    int64_t rank(int64_t n, int32_t base, float *__restrict distinct, int32_t *__restrict counts,
                 int32_t *__restrict codes) {
        int32_t largest = 0;
        for (int64_t j = 0; j < n; ++j) {
            const int32_t c = codes[j];
            largest = c > largest ? c : largest;
            ++table[c];
            present[c >> 6] |= uint64_t(1) << (c & 63);
        }
        int32_t found = 0;
        for (int32_t word = 0; word <= largest >> 6; ++word) {
            for (uint64_t left = present[word]; left; left &= left - 1) {
                const int32_t c = word * 64 + __builtin_ctzll(left);
                distinct[found] = float(c);
                counts[found] = table[c];
                table[c] = base + found++;
            }
            present[word] = 0;
        }
        for (int64_t j = 0; j < n; ++j) codes[j] = table[codes[j]];
        for (int32_t d = 0; d < found; ++d) table[int32_t(distinct[d])] = 0;
        return found;
    }
};

// The same for all positive values. `entries` [2 n] holds bits and places of n values, and room.
inline int64_t rank_by_sorting(Entry *entries, int64_t n, int32_t base, float *distinct, int32_t *counts,
                               int32_t *codes) {
    sort_entries(entries, n);
    int64_t found = -1;
    for (int64_t i = 0; i < n; ++i) {
        if (i == 0 || entries[i].bits != entries[i - 1].bits) {
            distinct[++found] = float_of(entries[i].bits);
            counts[found] = 0;
        }
        ++counts[found];
        codes[entries[i].place] = base + int32_t(found);
    }
    return found + 1;
}

}  // namespace cellscribe::binning
