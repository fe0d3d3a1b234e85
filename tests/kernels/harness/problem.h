// One attention: random inputs, and what must come out, computed plainly in double.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "numbers.h"

struct Sizes {
    int slots, tokens, kept, genes;
};

struct Problem {
    Sizes n;
    int heads, width;
    std::vector<uint16_t> query, memory;  // fp16
    std::vector<uint8_t> mask;
    std::vector<double> mixed, mass, weights;

    Problem(Sizes n_, int heads_, int width_, unsigned seed) : n(n_), heads(heads_), width(width_) {
        std::mt19937 random(seed);
        std::normal_distribution<float> normal;
        const int rows = heads * n.tokens;
        query.resize(size_t(n.slots) * rows * width);
        memory.resize(size_t(n.slots) * n.genes * width);
        mask.resize(size_t(n.slots) * n.genes);
        for (auto& x : query) x = to_half(normal(random) * 3 / std::sqrt(float(width)));
        for (size_t i = 0; i < mask.size(); ++i) mask[i] = i % size_t(n.genes) == 0 || random() % 4 != 0;
        for (size_t i = 0; i < memory.size(); ++i)  // what is not attended to must not be read
            memory[i] = mask[i / size_t(width)] ? to_half(normal(random)) : uint16_t(0x7e00);
        solve();
    }

private:
    void solve() {
        mixed.resize(query.size());
        mass.resize(size_t(n.slots) * n.kept * n.genes);
        weights.resize(size_t(n.slots) * heads * n.kept * n.genes);
        for (int b = 0; b < n.slots; ++b)
            for (int h = 0; h < heads; ++h)
                for (int t = 0; t < n.tokens; ++t) attend(b, h, t);
    }

    void attend(int b, int h, int t) {
        const size_t row = (size_t(b) * heads + h) * n.tokens + t;
        const uint8_t* seen = &mask[size_t(b) * n.genes];
        std::vector<double> p(n.genes, -std::numeric_limits<double>::infinity());
        for (int s = 0; s < n.genes; ++s)
            if (seen[s]) p[s] = dot(row, size_t(b) * n.genes + s);
        const double greatest = *std::max_element(p.begin(), p.end());
        double sum = 0;
        for (auto& x : p) sum += x = std::exp(x - greatest);
        const int kept = t - (n.tokens - n.kept);
        for (int s = 0; s < n.genes; ++s) {
            if (!seen[s]) continue;
            const size_t from = (size_t(b) * n.genes + s) * width;
            for (int i = 0; i < width; ++i) mixed[row * width + i] += p[s] / sum * from_half(memory[from + i]);
            if (kept < 0) continue;
            mass[(size_t(b) * n.kept + kept) * n.genes + s] += p[s] / sum / heads;
            weights[((size_t(b) * heads + h) * n.kept + kept) * n.genes + s] = p[s] / sum;
        }
    }

    double dot(size_t row, size_t gene) const {
        double sum = 0;
        for (int i = 0; i < width; ++i) sum += from_half(query[row * width + i]) * from_half(memory[gene * width + i]);
        return sum;
    }
};
