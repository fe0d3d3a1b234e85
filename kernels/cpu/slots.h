// Slots: taking room, and filling it with cells and known keys and values.
#pragma once
#include "decoder.h"

namespace CELLSCRIBE_ISA {

// (x - mean) / deviation over k numbers, then scale [k] and shift [k] where there are any.
inline void memory_norm(const float* x, int64_t k, const float* scale, const float* shift, float eps, float* out) {
  double total = 0.0, squares = 0.0;
  for (int64_t i = 0; i < k; ++i) total += x[i];
  float mean = static_cast<float>(total / static_cast<double>(k));
  for (int64_t i = 0; i < k; ++i) squares += static_cast<double>(x[i] - mean) * static_cast<double>(x[i] - mean);
  float factor = 1.0f / std::sqrt(static_cast<float>(squares / static_cast<double>(k)) + eps);
  for (int64_t i = 0; i < k; ++i) {
    float y = (x[i] - mean) * factor;
    out[i] = scale ? y * scale[i] + shift[i] : y;
  }
}

constexpr float kMemoryEps = 1e-5f;  // of torch's LayerNorm

inline Slots::Slots(const cellscribe_cpu_decoder& shape, Threads& threads, int64_t slots, int64_t capacity,
                    int64_t genes)
    : shape_(shape),
      threads_(threads),
      products_(threads),
      heads_{shape.n_layers, shape.n_kv_heads, shape.d_head, capacity},
      genes_(genes),
      cells_(static_cast<size_t>(slots)),
      scratch_(static_cast<size_t>(threads.count())) {
  Kind kind = static_cast<Kind>(shape.memory_kind);
  for (Cell& cell : cells_) {
    caches_.push_back(make_caches(heads_, static_cast<Kind>(shape.cache_kind)));
    if (!shape.cross_heads) continue;
    int64_t count = shape.is_latent ? 1 : (shape.n_layers - shape.n_lower) * shape.cross_kv_heads;
    int64_t width = shape.is_latent ? shape.d_memory : shape.cross_width;
    for (int64_t i = 0; i < count; ++i) cell.heads.push_back(std::make_unique<Attended>(kind, width, genes));
  }
}

inline void Slots::fill(int64_t slot, const float* memory, const int64_t* columns, int64_t count) {
  Cell& cell = cells_[static_cast<size_t>(slot)];
  cell.columns.assign(columns, columns + count);
  int64_t m = shape_.d_memory;
  if (!shape_.is_latent) {
    for (int64_t layer = shape_.n_lower; layer < shape_.n_layers; ++layer) project(cell, layer, memory, count);
    return;
  }
  if (!shape_.normalises_memory) {
    cell.heads[0]->fill(memory, memory, count, m);
    return;
  }
  Array<float> normed = make_array<float>(count * m);
  threads_.run(count, [&](int64_t row, int) {
    memory_norm(memory + row * m, m, nullptr, nullptr, kMemoryEps, normed.get() + row * m);
  });
  cell.heads[0]->fill(normed.get(), normed.get(), count, m);
}

inline void Slots::project(Cell& cell, int64_t layer, const float* memory, int64_t count) {
  const cellscribe_cpu_cross& cross = shape_.layers[layer].cross;
  int64_t m = shape_.d_memory, width = shape_.cross_width, heads = shape_.cross_kv_heads;
  Array<float> projected[2];
  void* weights[2] = {cross.to_keys, cross.to_values};
  for (int part = 0; part < 2; ++part) {
    const Linear& w = linear(weights[part]);
    prepare(w, count, [&](int64_t row, float* out) {
      if (cross.memory_norm) {
        memory_norm(memory + row * m, m, cross.memory_norm, cross.memory_norm + m, kMemoryEps, out);
      } else {
        std::memcpy(out, memory + row * m, static_cast<size_t>(m) * 4);
      }
    });
    projected[part] = make_array<float>(count * heads * width);
    multiply(w, count, projected[part].get(), heads * width, false);
  }
  threads_.run(heads, [&](int64_t head, int) {
    Attended& attended = *cell.heads[static_cast<size_t>((layer - shape_.n_lower) * heads + head)];
    attended.fill(projected[0].get() + head * width, projected[1].get() + head * width, count, heads * width);
  });
}

inline void Slots::write(int64_t slot, int64_t layer, const float* keys, const float* values, int64_t length) {
  Caches& caches = *caches_[static_cast<size_t>(slot)];
  for (int64_t head = 0; head < heads_.kv_heads; ++head)
    for (int64_t position = 0; position < length; ++position) {
      int64_t at = (head * length + position) * heads_.width;
      caches.write(layer, head, position, keys + at, values + at);
    }
}

inline void Slots::copy(int64_t from, int64_t to, int64_t layers, int64_t length) {
  caches_[static_cast<size_t>(to)]->copy(*caches_[static_cast<size_t>(from)], layers, length);
}

inline int64_t Slots::bytes() const {
  int64_t total = 0;
  for (const auto& caches : caches_) total += caches->bytes();
  for (const Cell& cell : cells_)
    for (const auto& head : cell.heads) total += head->bytes();
  return total;
}

inline float* Slots::Scratch::reserve_row(int64_t count) {
  if (count > row_room) row = make_array<float>(count), row_room = count;
  return row.get();
}

// Calls work(row, thread) for every row; neighbours go to one thread, as the keys of 16 positions share cache lines, and
// many short tasks cost more than they do.
template <class Work>
inline void Slots::over_rows(int64_t rows, Work&& work) {
  over_pieces(rows, [&](int64_t first, int64_t last, int thread) {
    for (int64_t row = first; row < last; ++row) work(row, thread);
  });
}

// Calls work(first, last, thread) for neighbouring rows.
template <class Work>
inline void Slots::over_pieces(int64_t rows, Work&& work) {
  int64_t each = std::clamp<int64_t>(rows / (4 * threads_.count()), 1, kLanes);
  threads_.run((rows + each - 1) / each, [&](int64_t task, int thread) {
    work(task * each, std::min(rows, (task + 1) * each), thread);
  });
}

// Prepares rows for a product with `w`: `fill(row, numbers)` writes its input.
template <class Fill>
inline void Slots::prepare(const Linear& w, int64_t rows, Fill&& fill) {
  prepared_.reserve(rows, w.kp);
  over_rows(rows, [&](int64_t row, int thread) {
    float* numbers = scratch_[static_cast<size_t>(thread)].reserve_row(w.k + kLanes);
    fill(row, numbers);
    prepared_.put(w, row, numbers);
  });
}

inline void Slots::multiply(const Linear& w, int64_t rows, float* out, int64_t stride, bool add) {
  Finish finish;
  finish.bias = w.bias.get(), finish.out = out, finish.stride = stride, finish.add = add;
  products_.run(w, prepared_.rows(w), rows, finish);
}

}  // namespace CELLSCRIBE_ISA
