// Cross-attention of new tokens to the cells of their slots.
#pragma once
#include "pass.h"

namespace CELLSCRIBE_ISA {

constexpr int64_t kCrossRows = 64;  // tokens at a time: bounds the absorbed queries

inline void Slots::cross_attention(Pass& pass, int64_t layer) {
  const cellscribe_cpu_cross& cross = shape_.layers[layer].cross;
  const Linear &q = linear(cross.q), &out = linear(cross.out);
  int64_t d = shape_.d_model, width = shape_.cross_width, kv = shape_.cross_kv_heads;
  int64_t group = shape_.cross_heads / kv, total = shape_.cross_heads * width;
  prepare(q, pass.rows, [&](int64_t row, float* to) { rms_norm(pass.x + row * d, d, cross.norm, cross.eps, to); });
  multiply(q, pass.rows, room_for(narrow_, narrow_room_, pass.rows * total), total, false);
  room_for(mixed_, mixed_room_, pass.rows * total);
  for (int64_t row = 0; row < pass.rows; row += kCrossRows)
    cross_rows(pass, layer, row, row + kCrossRows < pass.rows ? row + kCrossRows : pass.rows);
  // mixed [K, rows, G, D] -> [rows, K, G, D]
  prepare(out, pass.rows, [&](int64_t row, float* to) {
    for (int64_t head = 0; head < kv; ++head) {
      const float* from = mixed_.get() + (head * pass.rows + row) * group * width;
      for (int64_t i = 0; i < group * width; ++i) {
        float y = cross.shift ? from[i] + cross.shift[head * group * width + i] : from[i];
        to[head * group * width + i] = y * cross.out_scale;
      }
    }
  });
  multiply(out, pass.rows, pass.x, d, true);
}

inline void Slots::cross_rows(Pass& pass, int64_t layer, int64_t row0, int64_t row1) {
  if (pass.call.evidence) room_for(parts_, parts_room_, pass.call.outputs * cross_blocks() * up_to(genes_, kLanes));
  if (shape_.is_latent) absorb(layer, row0, row1);
  attend_heads(pass, layer, row0, row1);
  if (shape_.is_latent) release(pass, layer, row0, row1);
  if (pass.call.evidence) add_evidence(pass, row0, row1);
}

// Sums over the blocks of heads, in their order.
inline void Slots::add_evidence(Pass& pass, int64_t row0, int64_t row1) {
  int64_t room = up_to(genes_, kLanes), blocks = cross_blocks();
  threads_.run(row1 - row0, [&](int64_t task, int) {
    size_t row = static_cast<size_t>(row0 + task);
    int64_t output = pass.outputs[row];
    if (output < 0) return;
    const std::vector<int64_t>& columns = cells_[static_cast<size_t>(pass.slots[row])].columns;
    float* evidence = pass.call.evidence + output * pass.call.genes;
    for (int64_t block = 0; block < blocks; ++block) {
      const float* part = parts_.get() + (output * blocks + block) * room;
      for (size_t i = 0; i < columns.size(); ++i) evidence[columns[i]] += part[i];
    }
  });
}

// Queries [rows, K, G, D] -> absorbed [K, rows, G, m].
inline void Slots::absorb(int64_t layer, int64_t row0, int64_t row1) {
  int64_t width = shape_.cross_width, kv = shape_.cross_kv_heads, m = shape_.d_memory;
  int64_t group = shape_.cross_heads / kv, count = (row1 - row0) * group;
  room_for(absorbed_, absorbed_room_, kv * kCrossRows * group * m);
  threads_.run(kv, [&](int64_t head, int thread) {
    Scratch& scratch = scratch_[static_cast<size_t>(thread)];
    const Linear& key = linear(shape_.layers[layer].cross.key[head]);
    scratch.prepared.reserve(count, key.kp);
    for (int64_t row = row0; row < row1; ++row)
      for (int64_t g = 0; g < group; ++g)
        scratch.prepared.put(key, (row - row0) * group + g,
                             narrow_.get() + ((row * kv + head) * group + g) * width);
    Finish finish;
    finish.out = absorbed_.get() + head * count * m, finish.stride = m;
    multiply_panels(key, 0, key.panels(), scratch.prepared.rows(key), 0, count,
                    scratch.reserve_scores(kWideRoom + count * 64), finish);
  });
}

// Mixtures of the memory [K, rows, G, m] -> mixed [K, all rows, G, D].
inline void Slots::release(Pass& pass, int64_t layer, int64_t row0, int64_t row1) {
  int64_t width = shape_.cross_width, kv = shape_.cross_kv_heads, m = shape_.d_memory;
  int64_t group = shape_.cross_heads / kv, count = (row1 - row0) * group;
  threads_.run(kv, [&](int64_t head, int thread) {
    Scratch& scratch = scratch_[static_cast<size_t>(thread)];
    const Linear& value = linear(shape_.layers[layer].cross.value[head]);
    scratch.prepared.reserve(count, value.kp);
    for (int64_t i = 0; i < count; ++i)
      scratch.prepared.put(value, i, absorbed_.get() + (head * count + i) * m);
    Finish finish;
    finish.out = mixed_.get() + (head * pass.rows + row0) * group * width, finish.stride = width;
    multiply_panels(value, 0, value.panels(), scratch.prepared.rows(value), 0, count,
                    scratch.reserve_scores(kWideRoom + count * 64), finish);
  });
}

// Attends for the heads of every row. The heads of a group share their keys; a latent memory is shared by all heads,
// so that a task takes up to 32 of them while it passes, or eight where there are too few tasks for all threads.
inline void Slots::attend_heads(Pass& pass, int64_t layer, int64_t row0, int64_t row1) {
  int64_t kv = shape_.cross_kv_heads, group = shape_.cross_heads / kv, rows = row1 - row0, blocks = cross_blocks();
  int64_t span = shape_.is_latent ? rows * blocks / threads_.count() : 1;
  span = span > 4 ? 4 : span < 1 ? 1 : span;
  int64_t spans = (blocks + span - 1) / span, block_heads = shape_.is_latent ? 8 : group;
  threads_.run(rows * spans, [&](int64_t task, int thread) {
    int64_t row = row0 + task / spans, block0 = task % spans * span;
    int64_t block1 = block0 + span < blocks ? block0 + span : blocks;
    int64_t head0 = block0 * block_heads, head1 = block1 * block_heads;
    head1 = head1 < shape_.cross_heads ? head1 : shape_.cross_heads;
    const Cell& cell = cells_[static_cast<size_t>(pass.slots[static_cast<size_t>(row)])];
    std::vector<const float*> queries;
    std::vector<float*> out;
    for (int64_t head = head0; head < head1; ++head) {
      float* absorbed = absorbed_.get() + ((head / group * rows + row - row0) * group + head % group) * shape_.d_memory;
      float* mixed = mixed_.get() + ((head / group * pass.rows + row) * group + head % group) * shape_.cross_width;
      queries.push_back(shape_.is_latent ? absorbed : narrow_.get() + (row * shape_.cross_heads + head) * shape_.cross_width);
      out.push_back(shape_.is_latent ? absorbed : mixed);
    }
    const Attended& attended =
        *cell.heads[shape_.is_latent ? 0 : static_cast<size_t>((layer - shape_.n_lower) * kv + block0)];
    Scratch& scratch = scratch_[static_cast<size_t>(thread)];
    float scale = shape_.is_latent ? 1.0f : shape_.cross_scale;
    attend(attended.across(), attended.along(), scratch, queries.data(), head1 - head0, scale, out.data());
    int64_t room = up_to(attended.count(), kLanes);
    for (int64_t block = block0; block < block1; ++block) {
      int64_t first = block * block_heads, last = first + block_heads < head1 ? first + block_heads : head1;
      note(pass, layer, row, first, last - first, block, scratch.scores.get() + (first - head0) * room, room);
    }
  });
}

// Rows of queries -> rows of mixtures; the weights [count, S to 16] stay in the scores of `scratch`.
inline void Slots::attend(const Linear& across, const Linear& along, Scratch& scratch, const float* const* queries,
                          int64_t count, float scale, float* const* out) {
  int64_t genes = across.n, room = up_to(genes, kLanes), width = along.n;
  float* scores = scratch.reserve_scores(count * room);
  float* work = scratch.reserve_row(kWideRoom + count * 64 + count * width);
  float* mixed = work + kWideRoom + count * 64;
  scratch.prepared.reserve(count, across.kp > along.kp ? across.kp : along.kp);
  for (int64_t i = 0; i < count; ++i) scratch.prepared.put(across, i, queries[i]);
  Finish to_scores;
  to_scores.out = scores, to_scores.stride = room;
  multiply_panels(across, 0, across.panels(), scratch.prepared.rows(across), 0, count, work, to_scores);
  for (int64_t i = 0; i < count; ++i) softmax(scores + i * room, genes, scale);
  for (int64_t i = 0; i < count; ++i) scratch.prepared.put(along, i, scores + i * room);
  Finish to_mixed;
  to_mixed.out = mixed, to_mixed.stride = width;
  multiply_panels(along, 0, along.panels(), scratch.prepared.rows(along), 0, count, work, to_mixed);
  for (int64_t i = 0; i < count; ++i) std::memcpy(out[i], mixed + i * width, static_cast<size_t>(width) * 4);
}

// Keeps what a text is told of its attention: the sum over a block of heads, and all of it where it is asked for.
inline void Slots::note(Pass& pass, int64_t layer, int64_t row, int64_t head0, int64_t heads, int64_t block,
                        const float* weights, int64_t room) {
  int64_t output = pass.outputs[static_cast<size_t>(row)];
  if (output < 0 || !pass.call.evidence) return;
  const std::vector<int64_t>& columns = cells_[static_cast<size_t>(pass.slots[static_cast<size_t>(row)])].columns;
  float* part = parts_.get() + (output * cross_blocks() + block) * up_to(genes_, kLanes);
  for (int64_t i = 0; i < room; i += kLanes) {
    F total = zero();
    for (int64_t head = 0; head < heads; ++head) total += load(weights + head * room + i);
    store(part + i, total);
  }
  if (!pass.call.attention) return;
  int64_t layers = shape_.n_layers - shape_.n_lower, at = output * layers + layer - shape_.n_lower;
  for (int64_t head = 0; head < heads; ++head) {
    float* to = pass.call.attention + (at * shape_.cross_heads + head0 + head) * pass.call.genes;
    for (size_t i = 0; i < columns.size(); ++i) to[columns[i]] = weights[head * room + static_cast<int64_t>(i)];
  }
}

}  // namespace CELLSCRIBE_ISA
