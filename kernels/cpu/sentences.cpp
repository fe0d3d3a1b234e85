// See include/cellscribe/cpu_sentences.h.

#include "cellscribe/cpu_sentences.h"

#include <algorithm>
#include <cstring>

#define CELLSCRIBE_CPU_API extern "C" __attribute__((visibility("default")))

namespace {

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ull;
constexpr uint32_t kInfinite = 0x7F800000u;

uint64_t mixed(uint64_t state) {
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9ull;
    state = (state ^ (state >> 27)) * 0x94D049BB133111EBull;
    return state ^ (state >> 31);
}

// Rising order is falling value: the high half holds the value's bits inverted, the low half its draw.
struct Entry {
    uint64_t order;
    int32_t place;
};

// Draws that agree in their upper half are told apart by the lower one, then by the gene.
struct Before {
    const uint64_t *gene_keys;
    const int32_t *indices;
    uint64_t row_key;

    uint64_t draw(int32_t place) const { return mixed(row_key + (gene_keys[indices[place]] + 1) * kGolden); }
    bool operator()(const Entry &a, const Entry &b) const {
        if (a.order != b.order) return a.order < b.order;
        const uint64_t first = draw(a.place), second = draw(b.place);
        return first != second ? first < second : indices[a.place] < indices[b.place];
    }
};

}  // namespace

CELLSCRIBE_CPU_API int64_t cellscribe_cpu_sentences_fingerprint(void) {
    return int64_t(sizeof(CellscribeCpuRank)) * 1009 + int64_t(sizeof(CellscribeCpuJoin));
}

CELLSCRIBE_CPU_API int cellscribe_cpu_rank(const CellscribeCpuRank *p) {
    auto *entries = static_cast<Entry *>(p->scratch);
    for (int64_t row = 0; row < p->num_rows; ++row) {
        const int64_t start = p->indptr[row], length = p->indptr[row + 1] - start;
        const Before before{p->gene_keys, p->indices + start, p->row_keys[row]};
        uint32_t odd = 0;
        for (int64_t i = 0; i < length; ++i) {
            uint32_t bits;
            std::memcpy(&bits, p->data + start + i, 4);
            odd |= uint32_t(bits - 1u >= kInfinite - 1u);
            entries[i] = {uint64_t(~bits) << 32 | before.draw(int32_t(i)) >> 32, int32_t(i)};
        }
        if (odd) return CELLSCRIBE_RANK_IS_ODD;
        const int64_t kept = std::min(length, p->most), at = p->kept[row];
        if (kept < length) std::nth_element(entries, entries + kept, entries + length, before);
        std::sort(entries, entries + kept, before);
        for (int64_t i = 0; i < kept; ++i) {
            p->genes[at + i] = p->indices[start + entries[i].place];
            p->values[at + i] = p->data[start + entries[i].place];
        }
    }
    return CELLSCRIBE_RANKED;
}

CELLSCRIBE_CPU_API int cellscribe_cpu_join(const CellscribeCpuJoin *p) {
    char *out = p->text;
    p->ends[0] = 0;
    for (int64_t row = 0; row < p->num_rows; ++row) {
        for (int64_t i = p->indptr[row]; i < p->indptr[row + 1]; ++i) {
            const int64_t from = p->starts[p->genes[i]], length = p->starts[p->genes[i] + 1] - from;
            std::memcpy(out, p->names + from, size_t(length));
            out += length;
        }
        if (p->indptr[row] < p->indptr[row + 1]) --out;
        p->ends[row + 1] = out - p->text;
    }
    return CELLSCRIBE_RANKED;
}
