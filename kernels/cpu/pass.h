// The layers that a pass goes through.
#pragma once
#include "slots.h"

namespace CELLSCRIBE_ISA {

// Rows under way; after the last caches are written only those that give logits go on.
struct Slots::Pass {
  const cellscribe_cpu_call& call;
  int64_t rows;
  std::vector<int64_t> slots, positions, outputs;  // outputs: which logits a row gives, or -1
  std::vector<int64_t> lengths;                    // of the row's slot, where rows see all of it
  float* x;

  // A slot's rows follow each other: the last one's position tells how many there are.
  void measure() {
    lengths = positions;
    for (size_t row = lengths.size(); row-- > 0;)
      lengths[row] = row + 1 < lengths.size() && slots[row] == slots[row + 1] ? lengths[row + 1] : lengths[row] + 1;
  }
};

inline float* room_for(Array<float>& array, int64_t& room, int64_t count) {
  if (count > room) array = make_array<float>(count), room = count;
  return array.get();
}

inline void Slots::run(const cellscribe_cpu_call& call) {
  Pass pass{call, call.rows, {}, {}, {}, {}, call.x};
  pass.slots.assign(call.slots, call.slots + call.rows);
  pass.positions.assign(call.positions, call.positions + call.rows);
  pass.outputs.assign(static_cast<size_t>(call.rows), -1);
  for (int64_t i = 0; i < call.outputs; ++i) pass.outputs[static_cast<size_t>(call.chosen[i])] = i;
  if (shape_.sees_all) pass.measure();
  if (call.evidence) std::memset(call.evidence, 0, static_cast<size_t>(call.outputs * call.genes) * 4);
  if (call.attention) {
    int64_t each = (shape_.n_layers - shape_.n_lower) * shape_.cross_heads * call.genes;
    std::memset(call.attention, 0, static_cast<size_t>(call.outputs * each) * 4);
  }
  for (int64_t layer = call.first_layer; layer < call.last_layer; ++layer) {
    self_attention(pass, layer);
    if (layer >= shape_.n_lower && shape_.cross_heads) cross_attention(pass, layer);
    if (!shape_.is_parallel) feed_forward(pass, shape_.layers[layer]);
  }
  if (call.states && call.first_layer < call.last_layer) states(pass);
  if (call.logits && call.first_layer < call.last_layer) logits(pass);
  if (call.evidence && shape_.cross_heads) {
    float scale = 1.0f / static_cast<float>((shape_.n_layers - shape_.n_lower) * shape_.cross_heads);
    for (int64_t i = 0; i < call.outputs * call.genes; ++i) call.evidence[i] *= scale;
  }
}

inline void Slots::self_attention(Pass& pass, int64_t index) {
  const cellscribe_cpu_layer& layer = shape_.layers[index];
  const Linear& qkv = linear(layer.qkv);
  int64_t d = shape_.d_model, width = shape_.n_heads * shape_.d_head;
  prepare(qkv, pass.rows, [&](int64_t row, float* out) {
    norm(pass.x + row * d, layer.norm1, layer.shift1, layer.eps1, out);
  });
  multiply(qkv, pass.rows, room_for(wide_, wide_room_, pass.rows * qkv.n), qkv.n, false);
  attend_caches(pass, index);
  if (shape_.is_parallel) feed_forward(pass, layer);  // of the same input, before attention is added to it
  const Linear& out = linear(layer.out);
  prepare(out, pass.rows, [&](int64_t row, float* to) {
    std::memcpy(to, narrow_.get() + row * width, static_cast<size_t>(width) * 4);
  });
  add_product(out, pass, layer.post1, layer.eps1);
}

// Adds a product of prepared rows to the states, normed first where the model does that.
inline void Slots::add_product(const Linear& w, Pass& pass, const float* post, float eps) {
  int64_t d = shape_.d_model;
  if (!post) return multiply(w, pass.rows, pass.x, d, true);
  float* y = room_for(mixed_, mixed_room_, pass.rows * d);
  multiply(w, pass.rows, y, d, false);
  over_rows(pass.rows, [&](int64_t row, int thread) {
    float* normed = scratch_[static_cast<size_t>(thread)].reserve_row(d + kLanes);
    rms_norm(y + row * d, d, post, eps, normed);
    float* x = pass.x + row * d;
    for (int64_t i = 0; i < d; ++i) x[i] += normed[i];
  });
}

inline void Slots::norm(const float* x, const float* weight, const float* shift, float eps, float* out) const {
  if (shape_.is_layer_norm) layer_norm(x, shape_.d_model, weight, shift, eps, out);
  else rms_norm(x, shape_.d_model, weight, eps, out);
}

// Rotates a head by its position, halves against each other.
inline void rotate(float* __restrict__ x, const float* __restrict__ cos, const float* __restrict__ sin, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    float a = x[i], b = x[half + i];
    x[i] = a * cos[i] - b * sin[i];
    x[half + i] = b * cos[i] + a * sin[i];
  }
}

inline void Slots::attend_caches(Pass& pass, int64_t layer) {
  int64_t width = shape_.d_head, heads = shape_.n_heads, kv = shape_.n_kv_heads, half = shape_.rotary_width / 2;
  int64_t stride = (heads + 2 * kv) * width, group = heads / kv;
  // Head by head: the keys of neighbouring rows share cache lines, and those of one head stay near.
  over_pieces(pass.rows, [&](int64_t first, int64_t last, int) {
    for (int64_t head = 0; head < heads + kv; ++head)
      for (int64_t row = first; row < last; ++row) {
        float* x = wide_.get() + row * stride + head * width;
        int64_t position = pass.positions[static_cast<size_t>(row)];
        if (half) rotate(x, shape_.cos + position * half, shape_.sin + position * half, half);
        if (head < heads) continue;
        Caches& caches = *caches_[static_cast<size_t>(pass.slots[static_cast<size_t>(row)])];
        caches.write(layer, head - heads, position, x, x + kv * width);
      }
  });
  if (layer == shape_.n_layers - 1) keep_chosen(pass);
  room_for(narrow_, narrow_room_, pass.rows * heads * width);
  Scores how{shape_.score_scale, shape_.attention_cap, shape_.bias, shape_.bias_reach,
             (shape_.sees_all ? 2 : 1) * shape_.bias_reach + 1};
  int64_t window = shape_.window && layer % shape_.window_every == 0 ? shape_.window : 0;
  std::vector<Tile> tiles = tiles_of(pass, group);
  int64_t count = static_cast<int64_t>(tiles.size());
  threads_.run(count * kv, [&](int64_t task, int thread) {
    int64_t head = task / count;  // so that a head's keys and values stay in the cache while its rows go through
    const Tile& tile = tiles[static_cast<size_t>(task % count)];
    const Caches& caches = *caches_[static_cast<size_t>(pass.slots[static_cast<size_t>(tile.row)])];
    auto& scratch = scratch_[static_cast<size_t>(thread)];
    std::vector<Query>& queries = scratch.queries;
    queries.clear();
    for (int64_t row = tile.row; row < tile.row + tile.count; ++row) {
      int64_t position = pass.positions[static_cast<size_t>(row)];
      int64_t length = shape_.sees_all ? pass.lengths[static_cast<size_t>(row)] : position + 1;
      int64_t first = window && length > window ? length - window : 0;
      const float* q = wide_.get() + row * stride + head * group * width;
      float* to = narrow_.get() + row * heads * width + head * group * width;
      for (int64_t i = 0; i < group; ++i)
        queries.push_back({q + i * width, to + i * width, first, length, head * group + i, position});
    }
    caches.attend(layer, head, queries.data(), static_cast<int64_t>(queries.size()), how, scratch);
  });
}

// Neighbouring rows of one slot, as many as attend together.
inline std::vector<Slots::Tile> Slots::tiles_of(const Pass& pass, int64_t group) const {
  std::vector<Tile> tiles;
  int64_t most = std::max<int64_t>(1, caches_.front()->queries_at_once() / group);
  for (int64_t row = 0; row < pass.rows; ++row) {
    bool joins = !tiles.empty() && tiles.back().count < most &&
                 pass.slots[static_cast<size_t>(row)] == pass.slots[static_cast<size_t>(tiles.back().row)];
    if (joins) ++tiles.back().count;
    else tiles.push_back({row, 1});
  }
  return tiles;
}

// In the last layer the others have done their part: their keys and values are written.
inline void Slots::keep_chosen(Pass& pass) {
  if (pass.call.outputs == pass.rows) return;
  int64_t d = shape_.d_model, stride = (shape_.n_heads + 2 * shape_.n_kv_heads) * shape_.d_head;
  for (int64_t i = 0; i < pass.call.outputs; ++i) {
    int64_t from = pass.call.chosen[i];  // never before i
    std::memmove(pass.x + i * d, pass.x + from * d, static_cast<size_t>(d) * 4);
    std::memmove(wide_.get() + i * stride, wide_.get() + from * stride, static_cast<size_t>(stride) * 4);
    pass.slots[static_cast<size_t>(i)] = pass.slots[static_cast<size_t>(from)];
    pass.positions[static_cast<size_t>(i)] = pass.positions[static_cast<size_t>(from)];
    if (shape_.sees_all) pass.lengths[static_cast<size_t>(i)] = pass.lengths[static_cast<size_t>(from)];
    pass.outputs[static_cast<size_t>(i)] = i;
  }
  pass.rows = pass.call.outputs;
}

inline void Slots::feed_forward(Pass& pass, const cellscribe_cpu_layer& layer) {
  int64_t d = shape_.d_model, f = shape_.d_ffn;
  const Linear &gate_up = linear(layer.gate_up), &down = linear(layer.down);
  prepare(gate_up, pass.rows, [&](int64_t row, float* out) {
    norm(pass.x + row * d, layer.norm2, layer.shift2, layer.eps2, out);
  });
  int64_t stride = gate_up.n;
  multiply(gate_up, pass.rows, room_for(wide_, wide_room_, pass.rows * stride), stride, false);
  prepare(down, pass.rows, [&](int64_t row, float* out) {
    activate(shape_.activation, shape_.is_gated != 0, wide_.get() + row * stride, f, out);
  });
  add_product(down, pass, layer.post2, layer.eps2);
}

inline void Slots::states(Pass& pass) {
  over_rows(pass.rows, [&](int64_t row, int) {
    norm(pass.x + row * shape_.d_model, shape_.norm, shape_.shift, shape_.eps,
         pass.call.states + row * shape_.d_model);
  });
}

inline void Slots::logits(Pass& pass) {
  const Linear& head = linear(shape_.head);
  int64_t d = shape_.d_model;
  prepare(head, pass.rows, [&](int64_t row, float* out) {
    norm(pass.x + row * d, shape_.norm, shape_.shift, shape_.eps, out);
    if (shape_.head_scale != 1.0f)
      for (int64_t i = 0; i < d; ++i) out[i] *= shape_.head_scale;
  });
  multiply(head, pass.rows, pass.call.logits, shape_.vocab_size, false);
  if (shape_.logits_cap <= 0.0f) return;
  F cap = set1(shape_.logits_cap), inverse = set1(1.0f / shape_.logits_cap);
  int64_t n = shape_.vocab_size;
  threads_.run(pass.rows, [&](int64_t row, int) {
    float* y = pass.call.logits + row * n;
    for (int64_t i = 0; i < n; i += kLanes) store_row(y, i, n, cap * tanh(load_row(y, i, n) * inverse));
  });
}

}  // namespace CELLSCRIBE_ISA
