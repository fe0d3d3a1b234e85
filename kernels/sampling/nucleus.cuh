// Drawing from the most probable tokens of a row, without a sort.
//
// Every token has a key: how far its scaled logit lies below the largest one, as a fixed-point number of 59 bits, so
// that keys rise where probabilities fall. Its weight exp(-key) is an integer too, and sums of weights are exact: the
// threads may add in any order. "The first token, along rising keys, where the sum of weights reaches a target" is
// then found digit by digit: sum the weights per value of the digit, walk to the value where the target is reached,
// and go on among the tokens that have it. Once for the mass that top-p keeps, once for the draw.
#pragma once

#include "sampling/weights.cuh"

namespace cellscribe {

// Find the bin where the running sum reaches the target: 1 .. sum of all.
__device__ __forceinline__ void reach(const Sums& sums, uint64_t target, Shared& s) {
    const int mine = kBins / blockDim.x, begin = threadIdx.x * mine;
    uint64_t sum = 0;
    for (int i = 0; i < mine; ++i) sum += sums.of(begin + i);
    uint64_t before = sum_before(sum, s.words[0]);
    if (before < target && target <= before + sum) {
        int bin = begin;
        for (; before + sums.of(bin) < target; ++bin) before += sums.of(bin);
        s.bin = bin;
        s.before = before;
    }
    __syncthreads();
}

// Equal tokens, among which the running sum of weights reaches a target.
struct Found {
    uint64_t key, left;  // left: what of the target is left for these tokens
    int first_id;        // the lowest of their ids
};

template <class T>
struct Row {
    const T* logits;
    int count;
    Scale scale;
    Shared& s;

    __device__ __forceinline__ uint64_t weight(uint64_t key) const { return scale.weight(key, s.powers); }

    // Sum all weights by the first digit of their keys; returns the sum of all, and adds up exp(logit - largest).
    __device__ __forceinline__ uint64_t weigh(float& exponentials) const {
        __syncthreads();  // whoever used shared memory before is done
        s.first.clear();
        make_powers(s);
        __syncthreads();
        uint64_t sum = 0;
        for_each(logits, count, [&](int, float logit) {
            exponentials += expf(logit - scale.largest);
            const uint64_t key = scale.key(logit), mass = weight(key);
            if (mass) s.first.add(int(key >> kFirstShift), mass);
            sum += mass;
        });
        return block_combine(sum, 0, s.words[0], Add());
    }

    // Look at the tokens with this prefix: whether their keys are all equal, and if not, their sums by the next digit.
    __device__ __forceinline__ bool are_equal(const Prefix& prefix, int digit_bits, Found& found) const {
        __syncthreads();
        s.next.clear();
        __syncthreads();
        uint64_t ones = 0, zeros = 0, first = ~uint64_t(0);
        for_each(logits, count, [&](int id, float logit) {
            const uint64_t key = scale.key(logit);
            if (!prefix.matches(key)) return;
            ones |= key, zeros |= ~key;
            first = min(first, uint64_t(id));
            const auto digit = int(key >> (prefix.shift - digit_bits)) & ((1 << digit_bits) - 1);
            s.next.add(digit, weight(key));
        });
        ones = block_combine(ones, 0, s.words[0], Or());
        zeros = block_combine(zeros, 0, s.words[1], Or());
        found.key = ones;
        found.first_id = int(block_combine(first, ~uint64_t(0), s.words[2], Min()));
        return ones == ~zeros;
    }

    // The tokens where the sum of weights along rising keys reaches the target.
    __device__ Found find(uint64_t target) const {
        Prefix prefix = {0, kFirstShift};
        Found found;
        reach(s.first, target, s);
        prefix.digits = uint64_t(s.bin);
        for (;;) {
            target -= s.before;
            const int bits = prefix.shift < kDigitBits ? prefix.shift : kDigitBits;
            if (are_equal(prefix, bits, found)) break;
            reach(s.next, target, s);
            prefix = {prefix.digits << bits | uint64_t(s.bin), prefix.shift - bits};
        }
        found.left = target;
        return found;
    }

    // The token number `n`, from 0 on and by rising ids, of those with this key.
    __device__ int pick(uint64_t key, uint64_t n) const {
        const int share = (count + blockDim.x - 1) / blockDim.x;
        const int begin = min(count, int(threadIdx.x) * share), end = min(count, begin + share);
        uint64_t seen = 0;
        for (int id = begin; id < end; ++id) seen += scale.key(as_float(logits[id])) == key;
        uint64_t before = sum_before(seen, s.words[0]);
        if (before <= n && n < before + seen) {
            int id = begin;
            for (; scale.key(as_float(logits[id])) != key || before++ < n; ++id) continue;
            s.bin = id;
        }
        __syncthreads();
        return s.bin;
    }

    // Draw from the most probable tokens that together reach top_p of the total.
    __device__ __forceinline__ int draw(double top_p, uint64_t total, float uniform) const {
        bool is_kept = !(top_p < 1.0);  // whether the mass to draw from is known
        const auto part = uint64_t(uniform * 0x1p24f);  // of 2^24 parts; exact
        uint64_t target = is_kept ? drawn(total, part) : reached(top_p, total);
#pragma unroll 1
        for (;;) {
            const Found found = find(target);
            const uint64_t each = weight(found.key), n = (found.left - 1) / each;  // it is the n-th of its equals
            if (is_kept) return n ? pick(found.key, n) : found.first_id;
            is_kept = true;
            target = drawn(target - found.left + (n + 1) * each, part);
        }
    }

    static __device__ __forceinline__ uint64_t reached(double top_p, uint64_t total) {
        return min(max(uint64_t(ceil(top_p * double(total))), uint64_t(1)), total);
    }
    // One more than part / 2^24 of the mass, rounded down: sums of weights reach it where they exceed the draw.
    static __device__ __forceinline__ uint64_t drawn(uint64_t mass, uint64_t part) {
        return (mass >> 24) * part + ((mass & 0xffffff) * part >> 24) + 1;
    }
};

}  // namespace cellscribe
