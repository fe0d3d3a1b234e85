// See include/cellscribe/cpu_sentences.h.

#include "cellscribe/cpu_sentences.h"

#include <algorithm>
#include <cstring>
#include <string_view>

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

// The first `kept` entries in their order, by the upper halves of draws alone; false where those do not tell two apart.
bool rank_quickly(Entry *entries, int64_t kept, int64_t length) {
    const auto before = [](const Entry &a, const Entry &b) { return a.order < b.order; };
    if (kept < length) std::nth_element(entries, entries + kept, entries + length, before);
    std::sort(entries, entries + kept, before);
    for (int64_t i = 1; i < kept; ++i)
        if (entries[i].order == entries[i - 1].order) return false;
    return kept == 0 || kept == length || entries[kept].order != entries[kept - 1].order;
}

uint64_t hash_of(std::string_view word) {
    uint64_t state = 0xCBF29CE484222325ull;  // FNV-1a
    for (const char c : word) state = (state ^ uint8_t(c)) * 0x100000001B3ull;
    return state ^ (state >> 29);
}

std::string_view name_at(const char *names, const int64_t *starts, int64_t i) {
    return {names + starts[i], size_t(starts[i + 1] - starts[i] - 1)};  // without its space
}

int32_t find_word(const CellscribeCpuClean &p, std::string_view word) {
    const uint64_t mask = uint64_t(p.table_size) - 1;
    for (uint64_t at = hash_of(word) & mask;; at = (at + 1) & mask) {
        const int32_t found = p.table[at];
        if (found < 0 || name_at(p.names, p.name_starts, found) == word) return found;
    }
}

// Leaves one mention of a gene, at the mean of its places among what is left of the list; returns the new length.
int64_t merge(int32_t *genes, int64_t length, int32_t gene) {
    int64_t total = 0, count = 0, left = 0;
    for (int64_t i = 0; i < length; ++i) {
        if (genes[i] == gene) total += i, ++count;
        else genes[left++] = genes[i];
    }
    const int64_t place = std::min(total / count, left);
    std::memmove(genes + place + 1, genes + place, size_t(left - place) * sizeof(int32_t));
    genes[place] = gene;
    return left + 1;
}

}  // namespace

CELLSCRIBE_CPU_API int64_t cellscribe_cpu_sentences_fingerprint(void) {
    const auto both = int64_t(sizeof(CellscribeCpuRank)) * 1009 + int64_t(sizeof(CellscribeCpuJoin));
    return both * 1009 + int64_t(sizeof(CellscribeCpuClean));
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
        if (!rank_quickly(entries, kept, length)) {
            if (kept < length) std::nth_element(entries, entries + kept, entries + length, before);
            std::sort(entries, entries + kept, before);
        }
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

CELLSCRIBE_CPU_API int cellscribe_cpu_words(const char *names, const int64_t *starts, int64_t count, int32_t *table,
                                            int64_t size) {
    const uint64_t mask = uint64_t(size) - 1;
    std::fill(table, table + size, -1);
    for (int64_t i = 0; i < count; ++i) {
        uint64_t at = hash_of(name_at(names, starts, i)) & mask;
        while (table[at] >= 0) at = (at + 1) & mask;
        table[at] = int32_t(i);
    }
    return CELLSCRIBE_RANKED;
}

CELLSCRIBE_CPU_API int cellscribe_cpu_clean(const CellscribeCpuClean *p) {
    p->indptr[0] = 0;
    for (int64_t row = 0; row < p->num_rows; ++row) {
        int32_t *genes = p->genes + p->indptr[row];
        int64_t length = 0, replaced = 0, distinct = 0;
        const char *at = p->text + p->starts[row], *end = p->text + p->starts[row + 1];
        for (bool is_last = false; !is_last;) {
            const auto *stop = static_cast<const char *>(std::memchr(at, ' ', size_t(end - at)));
            is_last = stop == nullptr;
            if (is_last) stop = end;
            const int32_t gene = find_word(*p, {at, size_t(stop - at)});
            genes[length++] = gene;
            if (gene < 0) ++replaced;
            else if (p->counts[gene]++ == 0) p->first[distinct++] = gene;
            at = stop + 1;
        }
        for (int64_t i = 0; i < distinct; ++i) {  // in the order of their first mention
            const int32_t gene = p->first[i];
            if (p->counts[gene] > 1) length = merge(genes, length, gene);
            p->counts[gene] = 0;
        }
        p->indptr[row + 1] = p->indptr[row] + length;
        p->num_replaced[row] = replaced;
    }
    return CELLSCRIBE_RANKED;
}
