// The scGPT encoder of one cell at a time: embeddings, then layers of attention and feed-forward, each followed by a
// residual sum and a LayerNorm.
//
// A layer is two loops over all threads: one over (head, some queries), one over rows, each of which goes from its
// mixture to the queries, keys and values of the next layer while it lies in a cache. Every row is computed alike
// whatever the task it falls into, so that a memory does not depend on threads or on other cells.
#pragma once
#include <algorithm>

#include "cellscribe/cpu_encoder.h"
#include "encoder_attention.h"

namespace CELLSCRIBE_ISA {

class Encoder {
 public:
  Encoder(const cellscribe_cpu_encoder& shape, Threads& threads)
      : shape_(shape), threads_(threads), scratch_(static_cast<size_t>(threads.count())) {}

  void run(const cellscribe_cpu_cell& cell) {
    reserve(cell.count, cell.num_values);
    if (shape_.value_style == CELLSCRIBE_VALUES_CONTINUOUS) expand_values(cell);
    over_rows(cell.count, [&](int64_t first, int64_t last, EncoderScratch& scratch) {
      for (int64_t row = first; row < last; ++row) embed(cell, row);
      project(0, first, last, scratch);
    });
    for (int64_t layer = 0; layer < shape_.n_layers; ++layer) {
      attention(cell.count);
      over_rows(cell.count, [&](int64_t first, int64_t last, EncoderScratch& scratch) {
        finish_layer(shape_.layers[layer], first, last, scratch);
        if (layer + 1 < shape_.n_layers) project(layer + 1, first, last, scratch);
        else give(cell, first, last);
      });
    }
  }

 private:
  void reserve(int64_t count, int64_t num_values);
  void grow(int64_t count);
  void expand_values(const cellscribe_cpu_cell& cell);
  void embed(const cellscribe_cpu_cell& cell, int64_t row);
  void project(int64_t layer, int64_t first, int64_t last, EncoderScratch& scratch);
  void attention(int64_t count);
  void finish_layer(const cellscribe_cpu_encoder_layer& layer, int64_t first, int64_t last, EncoderScratch& scratch);
  void give(const cellscribe_cpu_cell& cell, int64_t first, int64_t last) const;

  // A cache line more than a row holds: rows a power of two apart would fight for the same lines.
  static int64_t stride_of(int64_t width) { return up_to(width, kLanes) + kLanes; }
  int64_t head_width() const { return shape_.d_model / shape_.n_heads; }
  int64_t query_stride() const {  // in words
    return stride_of(shape_.n_heads * EncoderHead::words_of(static_cast<Kind>(shape_.attention_kind), head_width()));
  }

  // Parts of equal numbers of panels of tokens, a few for each thread.
  template <class Work>
  void over_rows(int64_t rows, Work&& work) {
    int64_t panels = (rows + kLanes - 1) / kLanes, parts = 8 * threads_.count();
    if (parts * kMostPanels < panels) parts = (panels + kMostPanels - 1) / kMostPanels;
    parts = parts < panels ? parts : panels;
    threads_.run(parts, [&](int64_t part, int thread) {
      int64_t first = panels * part / parts * kLanes, last = panels * (part + 1) / parts * kLanes;
      work(first, last < rows ? last : rows, scratch_[static_cast<size_t>(thread)]);
    });
  }

  static constexpr int64_t kMostPanels = 8, kMostRows = kMostPanels * kLanes;

  cellscribe_cpu_encoder shape_;
  Threads& threads_;
  std::vector<EncoderScratch> scratch_;
  std::vector<std::unique_ptr<EncoderHead>> heads_;
  Array<float> x_, queries_, mixed_, values_;
  int64_t rows_ = 0, value_rows_ = 0;
};

inline void Encoder::reserve(int64_t count, int64_t num_values) {
  int64_t d = shape_.d_model;
  if (num_values > value_rows_ && shape_.value_style == CELLSCRIBE_VALUES_CONTINUOUS) {
    values_ = make_array<float>(num_values * stride_of(d));
    value_rows_ = num_values;
  }
  if (count > rows_) grow(count);
  for (auto& head : heads_) head->resize(count);
}

inline void Encoder::grow(int64_t count) {
  int64_t d = shape_.d_model, queries = count * query_stride(), room = score_room(count);
  rows_ = 0;  // nothing is there while memory is asked for
  x_ = make_array<float>(count * stride_of(d));
  mixed_ = make_array<float>(count * stride_of(d));
  queries_ = make_array<float>(queries);
  std::memset(queries_.get(), 0, static_cast<size_t>(queries) * 4);  // an odd width leaves gaps
  heads_.clear();
  for (int64_t i = 0; i < shape_.n_heads; ++i)
    heads_.push_back(std::make_unique<EncoderHead>(static_cast<Kind>(shape_.attention_kind), head_width(), count));
  int64_t widest = std::max(3 * d, shape_.d_ffn), products = kMostRows * 64, scores = kQueries * (64 + room + 1);
  int64_t keys = kLanes * up_to(head_width(), 4);
  for (EncoderScratch& scratch : scratch_) {
    scratch.reserve(kWideRoom + std::max({products, scores, keys}), kMostRows * stride_of(widest));
    scratch.prepared.reserve(kMostRows, std::max(d, shape_.d_ffn));
    scratch.prepared.reserve(kQueries, count);
  }
  rows_ = count;
}

// The vectors of distinct values: norm(linear(relu(value scale + shift))).
inline void Encoder::expand_values(const cellscribe_cpu_cell& cell) {
  int64_t d = shape_.d_model, stride = stride_of(d);
  over_rows(cell.num_values, [&](int64_t first, int64_t last, EncoderScratch& scratch) {
    float* hidden = scratch.hidden.get();
    for (int64_t row = first; row < last; ++row) {
      float value = cell.values[row] > shape_.max_value ? shape_.max_value : cell.values[row];
      float* to = hidden + (row - first) * stride;
      for (int64_t i = 0; i < d; ++i) {
        float y = value * shape_.expand[i] + shape_.expand[d + i];
        to[i] = y < 0.0f ? 0.0f : y;
      }
    }
    float* out = values_.get() + first * stride;
    multiply_rows(shape_.value_linear, hidden, stride, last - first, into(out, stride), scratch);
    norm_rows(out, last - first, stride, d, shape_.value_norm, shape_.value_eps);
  });
}

// Row `at` of a table, normed.
inline void read_table(const cellscribe_cpu_table& table, int64_t at, int64_t d, float* out) {
  if (table.is_half) {
    const uint16_t* from = static_cast<const uint16_t*>(table.numbers) + at * d;
    for (int64_t i = 0; i < d; i += kLanes) {
      uint16_t halves[kLanes] = {};
      int64_t n = d - i < kLanes ? d - i : kLanes;
      std::memcpy(halves, from + i, static_cast<size_t>(n) * 2);
      store(out + i, load_half(halves));
    }
  } else {
    std::memcpy(out, static_cast<const float*>(table.numbers) + at * d, static_cast<size_t>(d) * 4);
  }
  norm_row(out, d, table.norm, table.norm + d, table.eps);
}

inline void Encoder::embed(const cellscribe_cpu_cell& cell, int64_t row) {
  int64_t d = shape_.d_model, stride = stride_of(d);
  float* x = x_.get() + row * stride;
  read_table(shape_.genes, cell.genes[row], d, x);
  if (shape_.value_style == CELLSCRIBE_VALUES_SCALING) {
    for (int64_t i = 0; i < d; ++i) x[i] *= cell.values[row];
    return;
  }
  float* value = mixed_.get() + row * stride;  // still free
  if (shape_.value_style == CELLSCRIBE_VALUES_CATEGORY) read_table(shape_.values, cell.codes[row], d, value);
  else value = values_.get() + cell.codes[row] * stride;
  for (int64_t i = 0; i < d; ++i) x[i] += value[i];
}

// Queries, keys and values of some rows; keys and values go straight into their heads.
inline void Encoder::project(int64_t layer, int64_t first, int64_t last, EncoderScratch& scratch) {
  int64_t d = shape_.d_model, stride = stride_of(d), wide = stride_of(3 * d), width = head_width();
  int64_t count = last - first;
  float* qkv = scratch.hidden.get();
  multiply_rows(shape_.layers[layer].qkv, x_.get() + first * stride, stride, count, into(qkv, wide), scratch);
  Kind kind = static_cast<Kind>(shape_.attention_kind);
  int64_t words = EncoderHead::words_of(kind, width);
  for (int64_t head = 0; head < shape_.n_heads; ++head) {
    const float* from = qkv + head * width;
    heads_[static_cast<size_t>(head)]->put(first, count, from + d, from + 2 * d, wide, scratch.work.get());
    for (int64_t row = 0; row < count; ++row) {
      float* to = queries_.get() + (first + row) * query_stride() + head * words;
      if (kind == kFloat) std::memcpy(to, from + row * wide, static_cast<size_t>(width) * 4);
      else round_row(from + row * wide, width, reinterpret_cast<uint16_t*>(to));
    }
  }
}

inline void Encoder::attention(int64_t count) {
  int64_t width = head_width(), stride = stride_of(shape_.d_model);
  Kind kind = static_cast<Kind>(shape_.attention_kind);
  int64_t words = EncoderHead::words_of(kind, width), parts = (count + kQueries - 1) / kQueries;
  float scale = 1.44269504088896341f / std::sqrt(static_cast<float>(width));
  threads_.run(shape_.n_heads * parts, [&](int64_t task, int thread) {
    int64_t head = task / parts, first = task % parts * kQueries;
    int64_t some = first + kQueries < count ? kQueries : count - first;
    const float* from = queries_.get() + first * query_stride() + head * words;
    Rows queries{from, query_stride() * (kind == kFloat ? 1 : 2), nullptr, nullptr, 0};
    float* to = mixed_.get() + first * stride + head * width;
    attend(*heads_[static_cast<size_t>(head)], queries, some, scale, to, stride, scratch_[static_cast<size_t>(thread)]);
  });
}

inline void Encoder::finish_layer(const cellscribe_cpu_encoder_layer& layer, int64_t first, int64_t last,
                                  EncoderScratch& scratch) {
  int64_t d = shape_.d_model, stride = stride_of(d), count = last - first, wide = stride_of(shape_.d_ffn);
  float *x = x_.get() + first * stride, *mixed = mixed_.get() + first * stride;
  multiply_rows(layer.out, mixed, stride, count, into(x, stride, true), scratch);
  norm_rows(x, count, stride, d, layer.norm1, layer.eps1);
  float* hidden = scratch.hidden.get();
  multiply_rows(layer.linear1, x, stride, count, into(hidden, wide, false, true), scratch);
  multiply_rows(layer.linear2, hidden, wide, count, into(x, stride, true), scratch);
  norm_rows(x, count, stride, d, layer.norm2, layer.eps2);
}

inline void Encoder::give(const cellscribe_cpu_cell& cell, int64_t first, int64_t last) const {
  int64_t d = shape_.d_model;
  for (int64_t row = first; row < last; ++row) {
    const float* x = x_.get() + row * stride_of(d);
    if (!cell.is_half) {
      std::memcpy(static_cast<float*>(cell.memory) + cell.rows[row] * d, x, static_cast<size_t>(d) * 4);
      continue;
    }
    uint16_t* to = static_cast<uint16_t*>(cell.memory) + cell.rows[row] * d;
    for (int64_t i = 0; i < d; i += kLanes) {
      uint16_t halves[kLanes];
      store_half(halves, load_row(x, i, d));
      std::memcpy(to + i, halves, static_cast<size_t>(d - i < kLanes ? d - i : kLanes) * 2);
    }
  }
}

}  // namespace CELLSCRIBE_ISA
