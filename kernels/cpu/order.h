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
    int32_t place, slot;
};

struct Row {
    const int32_t *indices;
    const float *data;
    int64_t length;
    const uint64_t *gene_keys;
    uint64_t row_key;

    uint64_t draw(int32_t place) const { return scrambled(row_key + (gene_keys[indices[place]] + 1) * kGolden); }

    // Draws that agree in their upper half are told apart by the lower one, then by the gene.
    bool operator()(const Entry &a, const Entry &b) const {
        if (a.order != b.order) return a.order < b.order;
        const uint64_t first = draw(a.place), second = draw(b.place);
        return first != second ? first < second : indices[a.place] < indices[b.place];
    }
};

// The least and the highest value of a row as bits, which rise with positive values.
struct Span {
    int32_t least = kInfinite, most = 0;

    explicit Span(const Row &row) {
        for (int64_t i = 0; i < row.length; ++i) {
            const auto bits = std::bit_cast<int32_t>(row.data[i]);
            least = bits < least ? bits : least;
            most = bits > most ? bits : most;
        }
    }
    // All are positive and finite: the bits of zero, of negative numbers and of NaN lie outside.
    bool is_plain() const { return least >= 1 && most < kInfinite; }
};

// Sorts in three steps of a fixed cost for each entry. Values fall into buckets by their upper bits, and only buckets
// that reach into the first `kept` go on. There an entry gets a slot of its own: a draw is uniform, so among m equal
// values the draw x belongs near place m x. Insertion mends what is left.
class Order {
  public:
    Order(const Row &row, void *scratch)
        : row_(row), made_(static_cast<Entry *>(scratch)), sorted_(made_ + row.length),
          slots_(reinterpret_cast<int32_t *>(sorted_ + row.length)) {}

    // The first `kept` entries in their order; 1 <= kept <= length, and `span` is plain.
    const Entry *first(int64_t kept, const Span &span) {
        const int32_t last = count(kept, span);
        const int64_t num_made = place(last, uint32_t(span.most));
        if (!lay_out(kept, num_made)) {
            std::nth_element(made_, made_ + (kept - 1), made_ + num_made, row_);
            std::sort(made_, made_ + kept, row_);
            return made_;
        }
        return sorted_;
    }

  private:
    struct Bucket {
        int32_t count = 0, start = 0;
        uint32_t bits = 0;  // of one of its values
        bool is_mixed = false;
    };

    // Counts values by bucket; returns the bucket that the last of the first `kept` is in.
    int32_t count(int64_t kept, const Span &span) {
        const auto most = uint32_t(span.most);
        shift_ = std::max(0, int(std::bit_width(most - uint32_t(span.least))) - kCodeBits);
        for (int64_t i = 0; i < row_.length; ++i) {
            const auto bits = std::bit_cast<uint32_t>(row_.data[i]);
            Bucket &bucket = buckets_[(most - bits) >> shift_];
            ++bucket.count;
            bucket.bits = bits;
        }
        int32_t code = 0;
        for (int64_t sum = 0; sum < kept; ++code) {
            buckets_[code].start = int32_t(sum);
            sum += buckets_[code].count;
        }
        return code - 1;
    }

    // Makes the entries of buckets up to `last`, and gives each a slot; returns how many there are.
    int64_t place(int32_t last, uint32_t most) {
        int64_t num = 0;
        for (int64_t i = 0; i < row_.length; ++i) {
            const auto bits = std::bit_cast<uint32_t>(row_.data[i]);
            const uint32_t code = (most - bits) >> shift_;
            if (buckets_[code].bits != bits) buckets_[code].is_mixed = true;
            made_[num].order = uint64_t(most - bits) << 32;
            made_[num].place = int32_t(i);
            num += int32_t(code) <= last;
        }
        std::fill(slots_, slots_ + num, 0);
        for (int64_t i = 0; i < num; ++i) {
            Entry &entry = made_[i];
            const auto below = uint32_t(entry.order >> 32);
            const Bucket &bucket = buckets_[below >> shift_];
            entry.order |= row_.draw(entry.place) >> 32;
            const uint32_t within = bucket.is_mixed ? uint32_t(uint64_t(below) << (32 - shift_)) : uint32_t(entry.order);
            entry.slot = bucket.start + int32_t(uint64_t(within) * uint32_t(bucket.count) >> 32);
            ++slots_[entry.slot];
        }
        return num;
    }

    // Sorts by slot, and within slots; false where one of the first holds too many.
    bool lay_out(int64_t kept, int64_t num) {
        int32_t sum = 0, deepest = 0, taken = 0;
        for (int64_t slot = 0; slot < num; ++slot) {
            const int32_t here = slots_[slot];
            slots_[slot] = sum;
            if (sum < kept) deepest = std::max(deepest, here), taken = sum + here;
            sum += here;
        }
        if (deepest > kDeep) return false;
        for (int64_t i = 0; i < num; ++i) sorted_[slots_[made_[i].slot]++] = made_[i];
        for (int32_t i = 1; i < taken; ++i) {
            const Entry one = sorted_[i];
            int32_t j = i;
            for (; j > 0 && row_(one, sorted_[j - 1]); --j) sorted_[j] = sorted_[j - 1];
            sorted_[j] = one;
        }
        return true;
    }

    const Row &row_;
    Entry *made_, *sorted_;
    int32_t *slots_;
    int shift_ = 0;
    Bucket buckets_[1 << kCodeBits];
};

}  // namespace cellscribe::sentences
