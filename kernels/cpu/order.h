// The genes of one cell by falling value, equal values by their draws.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>

namespace cellscribe::sentences {

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ull;
constexpr int32_t kInfinite = 0x7F800000;
constexpr int kCodeBits = 9;   // a row's values are told apart by so many bits at first
constexpr int32_t kDeep = 32;  // entries of one slot that are still sorted by insertion

inline uint64_t scrambled(uint64_t state) {
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9ull;
    state = (state ^ (state >> 27)) * 0x94D049BB133111EBull;
    return state ^ (state >> 31);
}

// Rising order is falling value: the high half says how far the value is below the row's highest, in steps between
// floats; the low half holds the upper half of the draw.
struct Entry {
    uint64_t order;
    int32_t place;
};

struct Row {
    const int32_t *indices;
    const float *data;
    int64_t length;
    const uint64_t *gene_keys;
    uint64_t row_key;

    uint32_t bits(int64_t place) const { return std::bit_cast<uint32_t>(data[place]); }
    uint64_t draw(int32_t place) const { return scrambled(row_key + (gene_keys[indices[place]] + 1) * kGolden); }

    // Draws that agree in their upper half are told apart by the lower one, then by the gene.
    bool operator()(const Entry &a, const Entry &b) const {
        if (a.order != b.order) return a.order < b.order;
        const uint64_t first = draw(a.place), second = draw(b.place);
        return first != second ? first < second : indices[a.place] < indices[b.place];
    }
};

// The least and the highest value of a row as bits, which rise with positive values, and the bits that differ.
struct Span {
    int32_t least = kInfinite, most = 0, differ = 0;

    explicit Span(const Row &row) {
        for (int64_t i = 0; i < row.length; ++i) {
            const auto bits = int32_t(row.bits(i));
            least = bits < least ? bits : least;
            most = bits > most ? bits : most;
            differ |= bits ^ int32_t(row.bits(0));
        }
    }
    // All are positive and finite: the bits of zero, of negative numbers and of NaN lie outside.
    bool is_plain() const { return least >= 1 && most < kInfinite; }
};

// Values fall into buckets by their upper bits, the highest first. A bucket of one value is ordered by draws.
struct Buckets {
    static constexpr int kCount = 1 << kCodeBits;
    int shift;
    bool is_exact;  // no bucket has two values
    uint32_t counts[2][kCount] = {};  // two, as equal values in a row would wait for each other
    int32_t starts[kCount];
    uint32_t by_draw[kCount];  // all ones, or zero in a bucket of several values
};

// Entries side by side that are still in question: how far below the highest value, gene and place of each.
struct Pool {
    uint32_t *below, *draws;
    int32_t *columns, *places, *slots;
};

// A draw for each entry, and a slot: a draw is uniform, so among m equal values the draw x belongs near place m x.
template <bool kIsExact>
[[gnu::always_inline]] inline void place_entries(const Row &row, const Buckets &buckets, const Pool &pool, int64_t num) {
    const uint32_t *__restrict below = pool.below;
    uint32_t *__restrict draws = pool.draws;
    const int32_t *__restrict columns = pool.columns;
    int32_t *__restrict slots = pool.slots;
    const uint64_t *gene_keys = row.gene_keys, row_key = row.row_key;
    for (int64_t i = 0; i < num; ++i)
        draws[i] = uint32_t(scrambled(row_key + (gene_keys[columns[i]] + 1) * kGolden) >> 32);
    const int shift = buckets.shift;
    for (int64_t i = 0; i < num; ++i) {
        const auto code = int32_t(below[i] >> shift);
        uint32_t within = draws[i];
        if constexpr (!kIsExact)
            within = (within & buckets.by_draw[code]) | (below[i] << (32 - shift) & ~buckets.by_draw[code]);
        slots[i] = buckets.starts[code] + int32_t(uint64_t(within) * buckets.counts[0][code] >> 32);
    }
}

inline void place_narrow(const Row &row, const Buckets &buckets, const Pool &pool, int64_t num) {
    if (buckets.is_exact) place_entries<true>(row, buckets, pool, num);
    else place_entries<false>(row, buckets, pool, num);
}

#if defined(__x86_64__)
// The same with instructions that multiply eight 64-bit numbers at once.
__attribute__((target("avx512f,avx512dq,avx512vl"))) inline void place_wide(const Row &row, const Buckets &buckets,
                                                                            const Pool &pool, int64_t num) {
    if (buckets.is_exact) place_entries<true>(row, buckets, pool, num);
    else place_entries<false>(row, buckets, pool, num);
}

inline auto find_place() {
    return __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") ? place_wide : place_narrow;
}
#else
inline auto find_place() { return place_narrow; }
#endif

// Sorts in steps of a fixed cost for each entry: only buckets that reach into the first `kept` go on, entries go into
// slots, and insertion mends what is left.
class Order {
  public:
    static constexpr int64_t kBytes = sizeof(Entry) + 6 * sizeof(int32_t);  // for each entry of the longest row

    Order(const Row &row, void *scratch) : row_(row), sorted_(static_cast<Entry *>(scratch)) {
        auto *next = reinterpret_cast<int32_t *>(sorted_ + row.length);
        const auto taken = [&next, &row] { return next += row.length, next - row.length; };
        pool_ = {reinterpret_cast<uint32_t *>(taken()), reinterpret_cast<uint32_t *>(taken()), taken(), taken(), taken()};
        starts_ = taken();
    }

    // The first `kept` entries in their order; 1 <= kept <= length, and `span` is plain.
    const Entry *first(int64_t kept, const Span &span, decltype(find_place()) place) {
        const auto most = uint32_t(span.most);
        const int64_t num = pick(count(kept, span), most);
        if (!buckets_.is_exact) tell_mixed(most);
        place(row_, buckets_, pool_, num);
        if (lay_out(kept, num)) return sorted_;
        for (int64_t i = 0; i < num; ++i) sorted_[i] = entry(i);
        std::nth_element(sorted_, sorted_ + (kept - 1), sorted_ + num, row_);
        std::sort(sorted_, sorted_ + kept, row_);
        return sorted_;
    }

  private:
    Entry entry(int64_t i) const { return {uint64_t(pool_.below[i]) << 32 | pool_.draws[i], pool_.places[i]}; }

    // Counts values by bucket; returns the bucket that the last of the first `kept` is in.
    uint32_t count(int64_t kept, const Span &span) {
        const auto most = uint32_t(span.most);
        const int shift = std::max(0, int(std::bit_width(most - uint32_t(span.least))) - kCodeBits);
        buckets_.shift = shift;
        buckets_.is_exact = span.differ == 0 || std::countr_zero(uint32_t(span.differ)) >= shift;
        auto &counts = buckets_.counts;
        for (int64_t i = 0; i < row_.length; ++i) ++counts[i & 1][(most - row_.bits(i)) >> shift];
        uint32_t code = 0;
        for (int64_t sum = 0; sum < kept; ++code) {
            counts[0][code] += counts[1][code];
            buckets_.starts[code] = int32_t(sum);
            sum += counts[0][code];
        }
        return code - 1;
    }

    // Finds the buckets of several values.
    void tell_mixed(uint32_t most) {
        uint32_t seen[Buckets::kCount];
        const int shift = buckets_.shift;
        for (int64_t i = 0; i < row_.length; ++i) {
            const uint32_t below = most - row_.bits(i);
            seen[below >> shift] = below;
            buckets_.by_draw[below >> shift] = ~0u;
        }
        for (int64_t i = 0; i < row_.length; ++i) {
            const uint32_t below = most - row_.bits(i);
            if (seen[below >> shift] != below) buckets_.by_draw[below >> shift] = 0;
        }
    }

    // Picks the entries of buckets up to `last`; returns how many there are.
    int64_t pick(uint32_t last, uint32_t most) {
        const Pool pool = pool_;
        const int shift = buckets_.shift;
        int64_t num = 0;
        for (int64_t i = 0; i < row_.length; ++i) {
            const uint32_t below = most - row_.bits(i);
            pool.below[num] = below;
            pool.columns[num] = row_.indices[i];
            pool.places[num] = int32_t(i);
            num += below >> shift <= last;
        }
        return num;
    }

    // Sorts by slot, and within slots; false where one of the first holds too many.
    bool lay_out(int64_t kept, int64_t num) {
        std::fill(starts_, starts_ + num, 0);
        for (int64_t i = 0; i < num; ++i) ++starts_[pool_.slots[i]];
        int32_t sum = 0, deepest = 0, taken = 0;
        for (int64_t slot = 0; slot < num; ++slot) {
            const int32_t here = starts_[slot];
            starts_[slot] = sum;
            if (sum < kept) deepest = std::max(deepest, here), taken = sum + here;
            sum += here;
        }
        if (deepest > kDeep) return false;
        for (int64_t i = 0; i < num; ++i) sorted_[starts_[pool_.slots[i]]++] = entry(i);
        for (int32_t i = 1; i < taken; ++i) {
            const Entry one = sorted_[i];
            int32_t j = i;
            for (; j > 0 && row_(one, sorted_[j - 1]); --j) sorted_[j] = sorted_[j - 1];
            sorted_[j] = one;
        }
        return true;
    }

    const Row &row_;
    Entry *sorted_;
    Pool pool_;
    int32_t *starts_;
    Buckets buckets_;
};

}  // namespace cellscribe::sentences
