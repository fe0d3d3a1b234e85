// See include/cellscribe/cpu_ranks.h.

#include "cellscribe/cpu_ranks.h"

#include <bit>
#include <cstring>
#include <utility>

#define CELLSCRIBE_CPU_API extern "C" __attribute__((visibility("default")))

namespace {

// Rising order is falling value: the bits of positive doubles rise with them.
struct Entry {
    uint64_t order;
    int64_t token;
};
static_assert(2 * sizeof(Entry) == CELLSCRIBE_RANK_TOKEN_BYTES);

constexpr int kDigits = 8, kValues = 256;
constexpr int64_t kFew = 48;  // entries that are sorted by insertion

void insert_each(Entry *entries, int64_t count) {
    for (int64_t i = 1; i < count; ++i) {
        const Entry one = entries[i];
        int64_t j = i;
        for (; j > 0 && one.order < entries[j - 1].order; --j) entries[j] = entries[j - 1];
        entries[j] = one;
    }
}

// Sorts by one byte after the other, from the lowest; equal entries keep their order. Bytes that all entries share are
// passed over. Returns where the sorted entries are: `entries` or `other`.
const Entry *sorted(Entry *entries, Entry *other, int64_t count) {
    if (count <= kFew) {
        insert_each(entries, count);
        return entries;
    }
    uint32_t counts[kDigits][kValues] = {};
    for (int64_t i = 0; i < count; ++i)
        for (int digit = 0; digit < kDigits; ++digit) ++counts[digit][entries[i].order >> (8 * digit) & 255];
    for (int digit = 0; digit < kDigits; ++digit) {
        uint32_t *mine = counts[digit], sum = 0;
        if (mine[entries[0].order >> (8 * digit) & 255] == uint32_t(count)) continue;
        for (int value = 0; value < kValues; ++value) sum += std::exchange(mine[value], sum);
        for (int64_t i = 0; i < count; ++i) other[mine[entries[i].order >> (8 * digit) & 255]++] = entries[i];
        std::swap(entries, other);
    }
    return entries;
}

}  // namespace

CELLSCRIBE_CPU_API int64_t cellscribe_cpu_ranks_fingerprint(void) {
    return CELLSCRIBE_RANKS_RELEASE * 1009 + int64_t(sizeof(CellscribeCpuRankTokens));
}

CELLSCRIBE_CPU_API void cellscribe_cpu_rank_tokens(const CellscribeCpuRankTokens *p) {
    auto *const entries = static_cast<Entry *>(p->scratch);
    const auto single_target = float(p->target_sum);
    int64_t at = 0;
    p->indptr_out[0] = 0;
    for (int64_t row = 0; row < p->num_rows; ++row) {
        const double total = p->totals[row];
        const auto single_total = float(total);
        int64_t count = 0;
        for (int64_t i = p->indptr[row]; i < p->indptr[row + 1]; ++i) {
            const int32_t gene = p->indices[i];
            double value;
            if (p->linear != nullptr) value = p->linear[i];
            else if (p->is_single) value = double(p->data[i] / single_total * single_target);
            else value = double(p->data[i]) / total * p->target_sum;
            entries[count] = {~std::bit_cast<uint64_t>(value / p->medians[gene]), p->tokens[gene]};
            count += p->tokens[gene] >= 0;
        }
        const Entry *found = sorted(entries, entries + (p->indptr[row + 1] - p->indptr[row]), count);
        const int64_t kept = count < p->most ? count : p->most;
        for (int64_t i = 0; i < kept; ++i) p->out[at + i] = found[i].token;
        at += kept;
        p->indptr_out[row + 1] = at;
    }
}
