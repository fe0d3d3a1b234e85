// See include/cellscribe/cpu_sentences.h.

#include "cellscribe/cpu_sentences.h"

#include <algorithm>
#include <cstring>
#include <string_view>

#include "order.h"

#define CELLSCRIBE_CPU_API extern "C" __attribute__((visibility("default")))

namespace {

using cellscribe::sentences::Entry;
using cellscribe::sentences::Order;
using cellscribe::sentences::Row;
using cellscribe::sentences::Span;

constexpr int64_t kSlack = CELLSCRIBE_NAME_SLACK;
static_assert(Order::kBytes == CELLSCRIBE_RANK_BYTES);

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
    int64_t all = CELLSCRIBE_SENTENCES_RELEASE;
    for (const size_t size : {sizeof(CellscribeCpuRank), sizeof(CellscribeCpuTally), sizeof(CellscribeCpuJoin),
                              sizeof(CellscribeCpuClean)})
        all = all * 1009 + int64_t(size);
    return all;
}

CELLSCRIBE_CPU_API int cellscribe_cpu_rank(const CellscribeCpuRank *p) {
    const auto place = cellscribe::sentences::find_place();
    for (int64_t row = 0; row < p->num_rows; ++row) {
        const int64_t start = p->indptr[row], length = p->indptr[row + 1] - start;
        const int64_t at = p->kept[row], kept = p->kept[row + 1] - at;
        const Row values{p->indices + start, p->data + start, length, p->gene_keys, p->row_keys[row]};
        const Span span(values);
        if (length > 0 && !span.is_plain()) return CELLSCRIBE_RANK_IS_ODD;
        if (kept == 0) continue;
        Order order(values, p->scratch);
        const Entry *entries = order.first(kept, span, place);
        for (int64_t i = 0; i < kept; ++i) {
            p->genes[at + i] = values.indices[entries[i].place];
            p->values[at + i] = values.data[entries[i].place];
        }
    }
    return CELLSCRIBE_RANKED;
}

CELLSCRIBE_CPU_API int cellscribe_cpu_tally(const CellscribeCpuTally *p) {
    for (int64_t row = 0; row < p->num_rows; ++row) {
        double sums[8] = {};  // so that additions need not wait for each other
        int64_t i = p->indptr[row];
        const int64_t end = p->indptr[row + 1];
        for (; i + 8 <= end; i += 8)
            for (int lane = 0; lane < 8; ++lane) sums[lane] += double(p->data[i + lane]);
        for (int lane = 0; i < end; ++i, ++lane) sums[lane] += double(p->data[i]);
        for (int half = 4; half > 0; half /= 2)
            for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
        p->totals[row] = sums[0];
    }
    const int64_t num_values = p->num_rows > 0 ? p->indptr[p->num_rows] : 0;
    for (int64_t i = 0; i < num_values; ++i) ++p->num_cells[p->indices[i]];
    return CELLSCRIBE_RANKED;
}

CELLSCRIBE_CPU_API int cellscribe_cpu_join(const CellscribeCpuJoin *p) {
    p->ends[0] = 0;
    int64_t at = 0;
    for (int64_t row = 0; row < p->num_rows; ++row) {
        for (int64_t i = p->indptr[row]; i < p->indptr[row + 1]; ++i) {
            const int64_t from = p->starts[p->genes[i]], length = p->starts[p->genes[i] + 1] - from;
            if (p->text != nullptr) {
                std::memcpy(p->text + at, p->names + from, kSlack);  // most names fit, and a fixed size is quick
                if (length > kSlack) std::memcpy(p->text + at + kSlack, p->names + from + kSlack, size_t(length - kSlack));
            }
            at += length;
        }
        if (p->indptr[row] < p->indptr[row + 1]) --at;
        p->ends[row + 1] = at;
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
