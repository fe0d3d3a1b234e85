// See include/cellscribe/cpu_binning.h. Rows are short (tens to a few thousand entries) and most counts are small, so
// a row costs a few passes over data that lie in the first cache.

#include "cellscribe/cpu_binning.h"

#include <cstring>

#include "blake2b.h"
#include "rank.h"

// One loop for AVX2 beside the portable one, chosen when the library is loaded.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__)
#define CELLSCRIBE_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define CELLSCRIBE_CLONES
#endif
#define CELLSCRIBE_CPU_API extern "C" __attribute__((visibility("default")))

namespace {

using namespace cellscribe::binning;

constexpr int64_t kMaxEdges = 1024;
constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ull;

CELLSCRIBE_CLONES
bool all_plain(const int32_t *indices, const float *data, int64_t n, uint32_t num_genes) {
    int32_t odd = 0;
    for (int64_t i = 0; i < n; ++i) odd |= int32_t(uint32_t(indices[i]) >= num_genes) | int32_t(!is_plain(data[i]));
    return odd == 0;
}

CELLSCRIBE_CLONES
int64_t count_falls(const int32_t *indices, int64_t n) {
    int64_t falls = 0;
    for (int64_t i = 1; i < n;) {  // in pieces that 32 bits can count
        const int64_t stop = n - i > (1 << 20) ? i + (1 << 20) : n;
        int32_t some = 0;
        for (; i < stop; ++i) some += int32_t(indices[i] <= indices[i - 1]);
        falls += some;
    }
    return falls;
}

// What is added to a float in [0, 2^23) to have its nearest whole number in the low bits.
constexpr float kShift = 8388608.0f;
constexpr uint32_t kShiftBits = 0x4B000000u;

// The sum of whole numbers, exact; false where one is not whole, or 2^23 and more.
CELLSCRIBE_CLONES
bool add_up(const float *data, int64_t n, double *total) {
    uint64_t sum = 0;
    uint32_t odd = 0;
    for (int64_t start = 0; start < n; start += 256) {  // as many as 32 bits hold
        const int64_t stop = n - start > 256 ? start + 256 : n;
        uint32_t some = 0;
        for (int64_t i = start; i < stop; ++i) {
            const float shifted = data[i] + kShift;
            const uint32_t whole = bits_of(shifted) - kShiftBits;
            odd |= (bits_of(shifted - kShift) ^ bits_of(data[i])) | (whole >> 23);
            some += whole;
        }
        sum += some;
    }
    *total = double(sum);
    return odd == 0;
}

// Writes the places of the entries that are fed, one store too many at most, and returns their number.
int64_t find_fed(const int32_t *__restrict indices, int64_t length, const uint8_t *__restrict is_fed,
                 int32_t *__restrict places) {
    int64_t n = 0;
    for (int64_t i = 0; i < length; ++i) {
        places[n] = int32_t(i);
        n += is_fed[indices[i]];
    }
    return n;
}

struct Kind {
    bool is_small, is_odd;  // all values are whole and less than kSmall; some are not positive and finite
};

// Values and slots of the entries that are fed, and the values as whole numbers, where they are.
Kind gather(const float *__restrict data, const int32_t *__restrict indices, const int32_t *__restrict places,
            int64_t n, const int32_t *__restrict slot_of_column, float *__restrict values, int32_t *__restrict slots,
            int32_t *__restrict codes) {
    uint32_t odd = 0, uneven = 0, largest = 0;
    for (int64_t j = 0; j < n; ++j) {
        const float x = data[places[j]], shifted = x + kShift;
        const uint32_t whole = bits_of(shifted) - kShiftBits;
        values[j] = x;
        slots[j] = slot_of_column[indices[places[j]]];
        codes[j] = int32_t(whole);
        odd |= uint32_t(!is_plain(x));
        uneven |= bits_of(shifted - kShift) ^ bits_of(x);
        largest = whole > largest ? whole : largest;
    }
    return {uneven == 0 && largest < uint32_t(kSmall), odd != 0};
}

uint64_t mixed(uint64_t state) {
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9ull;
    state = (state ^ (state >> 27)) * 0x94D049BB133111EBull;
    return state ^ (state >> 31);
}

// numpy.quantile of rising values, method "linear", with its arithmetic.
CELLSCRIBE_CLONES
void find_edges(const double *ranked, int64_t n, const double *shares, int64_t num_edges, double *edges) {
    const int32_t last = int32_t(n - 1);
    for (int64_t e = 0; e < num_edges; ++e) {
        const double place = shares[e] * double(last);
        const int32_t low = int32_t(place), high = low < last ? low + 1 : last;
        const double share = place - double(low), a = ranked[low], b = ranked[high], step = b - a;
        edges[e] = share >= 0.5 ? b - step * (1.0 - share) : a + step * share;
    }
}

struct Bounds {
    int32_t left, width;  // edges not above the value; how many of them equal it
};

// ceil(left - u * width) of every entry, which is exact in whole numbers, as u is a multiple of 2^-24.
CELLSCRIBE_CLONES
void draw_digits(const int32_t *__restrict codes, const int32_t *__restrict slots, int64_t n,
                 const Bounds *__restrict bounds, const int64_t *__restrict tokens, uint64_t key,
                 float *__restrict digits) {
    for (int64_t j = 0; j < n; ++j) {
        const Bounds at = bounds[codes[j]];
        const uint64_t draw = mixed(key + (uint64_t(tokens[slots[j]]) + 1) * kGolden) >> 40;
        digits[j] = float(at.left - int32_t(draw * uint64_t(at.width) >> 24));
    }
}

}  // namespace

CELLSCRIBE_CPU_API int64_t cellscribe_cpu_binning_fingerprint(void) {
    int64_t value = int64_t(sizeof(CellscribeCpuRows));
    value = value * 1009 + int64_t(sizeof(CellscribeCpuSelect));
    value = value * 1009 + int64_t(sizeof(CellscribeCpuBin));
    return value * 1009 + int64_t(sizeof(CellscribeCpuLayOut));
}

CELLSCRIBE_CPU_API int cellscribe_cpu_rows_are_plain(const CellscribeCpuRows *p) {
    const int64_t n = p->indptr[p->num_rows];
    if (p->num_genes > INT32_MAX || !all_plain(p->indices, p->data, n, uint32_t(p->num_genes))) return 0;
    int64_t allowed = 0;  // falls from one row to the next
    for (int64_t row = 1; row < p->num_rows; ++row) {
        const int64_t at = p->indptr[row];
        if (at > p->indptr[row - 1] && at < n) allowed += p->indices[at] <= p->indices[at - 1];
    }
    return count_falls(p->indices, n) == allowed;
}

CELLSCRIBE_CPU_API int cellscribe_cpu_select(const CellscribeCpuSelect *p) {
    const CellscribeCpuRows &rows = p->rows;
    Counter counter;
    int64_t fed = 0, found = 0;
    p->indptr[0] = p->distinct_indptr[0] = 0;
    for (int64_t row = 0; row < rows.num_rows; ++row) {
        const int64_t start = rows.indptr[row], length = rows.indptr[row + 1] - start;
        const int32_t *indices = rows.indices + start;
        const float *data = rows.data + start;
        const bool has_scale = p->target_sum != 0.0 && length > 0;
        float scale = 1.0f;
        if (has_scale) {
            double total;
            if (p->totals) total = p->totals[row];
            else if (!add_up(data, length, &total)) return CELLSCRIBE_ROWS_NEED_TOTALS;
            scale = float(total / p->target_sum);
            if (!is_plain(scale)) return CELLSCRIBE_ROWS_ARE_ODD;
        }
        auto *places = static_cast<int32_t *>(p->scratch);
        const int64_t n = find_fed(indices, length, p->is_fed, places);
        float *values = static_cast<float *>(p->scratch) + length;
        const auto [is_small, is_odd] = gather(data, indices, places, n, p->slot_of_column, values, p->slots + fed,
                                               p->codes + fed);
        if (is_odd) return CELLSCRIBE_ROWS_ARE_ODD;
        float *distinct = p->distinct + found;
        int64_t kinds;
        if (is_small) {
            kinds = counter.rank(n, int32_t(found), distinct, p->counts + found, p->codes + fed);
        } else {
            auto *entries = static_cast<Entry *>(p->scratch);
            for (int64_t j = 0; j < n; ++j) p->codes[fed + j] = int32_t(bits_of(values[j]));  // entries lie over them
            for (int64_t j = 0; j < n; ++j) entries[j] = {uint32_t(p->codes[fed + j]), uint32_t(j)};
            kinds = rank_by_sorting(entries, n, int32_t(found), distinct, p->counts + found, p->codes + fed);
        }
        if (has_scale) {
            for (int64_t d = 0; d < kinds; ++d) {
                distinct[d] /= scale;
                if (bits_of(distinct[d]) >= kInfinite) return CELLSCRIBE_ROWS_ARE_ODD;
            }
        }
        p->indptr[row + 1] = fed += n;
        p->distinct_indptr[row + 1] = found += kinds;
    }
    return CELLSCRIBE_ROWS_DONE;
}

CELLSCRIBE_CPU_API int cellscribe_cpu_bin(const CellscribeCpuBin *p) {
    double edges[kMaxEdges];
    if (p->num_edges < 1 || p->num_edges > kMaxEdges) return CELLSCRIBE_ROWS_ARE_ODD;
    for (int64_t row = 0; row < p->num_rows; ++row) {
        const int64_t start = p->indptr[row], n = p->indptr[row + 1] - start;
        const int64_t base = p->distinct_indptr[row], kinds = p->distinct_indptr[row + 1] - base;
        if (n == 0) continue;
        const float *distinct = p->distinct + base;
        auto *ranked = static_cast<double *>(p->scratch);
        double *next = ranked;
        for (int64_t d = 0; d < kinds; ++d) {
            if (d > 0 && !(distinct[d] >= distinct[d - 1])) return CELLSCRIBE_ROWS_ARE_ODD;
            for (int32_t i = 0; i < p->counts[base + d]; ++i) *next++ = double(distinct[d]);
        }
        find_edges(ranked, n, p->shares, p->num_edges, edges);
        auto *bounds = static_cast<Bounds *>(p->scratch);  // over the ranked values, which are done with
        int32_t left = 0, right = 0;
        const auto num_edges = int32_t(p->num_edges);
        for (int64_t d = 0; d < kinds; ++d) {
            const auto x = double(distinct[d]);
            while (right < num_edges && edges[right] < x) ++right;
            left = left > right ? left : right;
            while (left < num_edges && edges[left] <= x) ++left;
            bounds[d] = {left, left - right};
        }
        draw_digits(p->codes + start, p->slots + start, n, bounds - base, p->tokens, p->keys[row], p->digits + start);
    }
    return CELLSCRIBE_ROWS_DONE;
}

CELLSCRIBE_CPU_API int cellscribe_cpu_lay_out(const CellscribeCpuLayOut *p) {
    for (int64_t row = 0; row < p->num_rows; ++row) {
        float *out = p->out + row * p->width;
        std::memset(out, 0, size_t(p->width) * sizeof(float));
        out[0] = p->first;
        for (int64_t j = p->indptr[row]; j < p->indptr[row + 1]; ++j) out[1 + p->slots[j]] = p->values[j];
    }
    return CELLSCRIBE_ROWS_DONE;
}

CELLSCRIBE_CPU_API int cellscribe_cpu_cell_keys(int64_t num_names, const char *text, uint64_t *keys) {
    for (int64_t i = 0; i < num_names; ++i) {
        const size_t length = std::strlen(text);
        keys[i] = blake2b_64(reinterpret_cast<const uint8_t *>(text), length);
        text += length + 1;
    }
    return CELLSCRIBE_ROWS_DONE;
}
