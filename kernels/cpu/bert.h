// BERT, post-norm: self-attention within each sequence, attention across to a cell on request, and a feed-forward, each
// followed by a residual sum and a LayerNorm.
//
// Sequences lie one after the other without padding. Loops over all threads go over rows, or over heads and sequences;
// every row is computed alike whatever the task it falls into, so that a state depends on its own sequence alone.
#pragma once
#include <algorithm>

#include "cellscribe/cpu_bert.h"
#include "encoder_attention.h"

namespace CELLSCRIBE_ISA {

// Keys and values of a cell for every layer and head, packed as weights.
class BertMemory {
 public:
  BertMemory(const cellscribe_cpu_bert& shape, int64_t most) {
    for (int64_t i = 0; i < shape.n_layers * shape.n_heads; ++i)
      heads_.push_back(std::make_unique<EncoderHead>(static_cast<Kind>(shape.attention_kind),
                                                     shape.d_model / shape.n_heads, most));
  }
  void resize(int64_t count) {
    for (auto& head : heads_) head->resize(count);
  }
  EncoderHead& head(int64_t i) { return *heads_[static_cast<size_t>(i)]; }

 private:
  std::vector<std::unique_ptr<EncoderHead>> heads_;
};

class Bert {
 public:
  Bert(const cellscribe_cpu_bert& shape, Threads& threads)
      : shape_(shape), threads_(threads), scratch_(static_cast<size_t>(threads.count())) {}

  std::unique_ptr<BertMemory> new_memory(int64_t most) const { return std::make_unique<BertMemory>(shape_, most); }

  // Keys and values of the states [count, m] of a cell; `memory` has room for them.
  void remember(BertMemory& memory, const float* states, int64_t count) {
    const int64_t d = shape_.d_model, wide = stride_of(2 * d), width = head_width();
    reserve_scratch(count, count);
    memory.resize(count);
    for (int64_t layer = 0; layer < shape_.n_layers; ++layer) {
      over_rows(count, [&](int64_t first, int64_t last, EncoderScratch& scratch) {
        float* both = scratch.hidden.get();
        multiply_rows(shape_.layers[layer].cross_kv, states + first * shape_.d_memory, shape_.d_memory, last - first,
                      into(both, wide), scratch);
        for (int64_t head = 0; head < shape_.n_heads; ++head)
          memory.head(layer * shape_.n_heads + head)
              .put(first, last - first, both + head * width, both + d + head * width, wide, scratch.work.get());
      });
    }
    remembered_ = count;
  }

  void run(const cellscribe_cpu_bert_run& p) {
    const int64_t d = shape_.d_model, stride = stride_of(d), tokens = p.starts[p.num_sequences];
    auto* memory = static_cast<BertMemory*>(p.memory);
    reserve(p);
    const bool is_late = (p.flags & CELLSCRIBE_BERT_LATE) != 0, is_early = (p.flags & CELLSCRIBE_BERT_EARLY) != 0;
    over_rows(tokens, [&](int64_t first, int64_t last, EncoderScratch& scratch) {
      for (int64_t row = first; row < last; ++row)
        std::memcpy(x_.get() + row * stride, p.x + row * d, static_cast<size_t>(d) * 4);
      if (!is_late) project(0, first, last, scratch);
    });
    int64_t rows = tokens;
    for (int64_t layer = 0; layer < shape_.n_layers; ++layer) {
      const cellscribe_cpu_bert_layer& w = shape_.layers[layer];
      const bool has_self = layer > 0 || !is_late, is_last = layer + 1 == shape_.n_layers;
      const bool is_first_only = is_last && (p.flags & CELLSCRIBE_BERT_FIRST) != 0;
      if (has_self) attend_within(p, is_first_only);
      if (is_first_only) rows = keep_first(p);
      over_rows(rows, [&](int64_t first, int64_t last, EncoderScratch& scratch) {
        if (has_self) add_normed(w.out, w.norm1, w.eps1, first, last, scratch);
        if (memory != nullptr && !is_early) ask(w, first, last, scratch);
      });
      if (is_early) break;
      if (memory != nullptr) attend_across(*memory, layer, rows);
      over_rows(rows, [&](int64_t first, int64_t last, EncoderScratch& scratch) {
        if (memory != nullptr) add_normed(w.cross_out, w.cross_norm, w.cross_eps, first, last, scratch);
        feed_forward(w, first, last, scratch);
        if (!is_last) project(layer + 1, first, last, scratch);
      });
    }
    for (int64_t row = 0; row < rows; ++row)
      std::memcpy(p.out + row * d, x_.get() + row * stride, static_cast<size_t>(d) * 4);
  }

 private:
  static int64_t stride_of(int64_t width) { return up_to(width, kLanes) + kLanes; }
  int64_t head_width() const { return shape_.d_model / shape_.n_heads; }
  Kind kind() const { return static_cast<Kind>(shape_.attention_kind); }

  void reserve(const cellscribe_cpu_bert_run& p) {
    const int64_t d = shape_.d_model, tokens = p.starts[p.num_sequences];
    int64_t longest = 0;
    for (int64_t i = 0; i < p.num_sequences; ++i) longest = std::max(longest, p.starts[i + 1] - p.starts[i]);
    reserve_scratch(longest, std::max(longest, p.memory != nullptr ? remembered_ : 0));
    if (tokens <= rows_) return;
    rows_ = 0;  // nothing is there while memory is asked for
    x_ = make_array<float>(tokens * stride_of(d));
    mixed_ = make_array<float>(tokens * stride_of(d));
    wide_ = make_array<float>(tokens * stride_of(3 * d));
    rows_ = tokens;
  }

  // Room for sequences of `longest` tokens, and for queries to `most` keys.
  void reserve_scratch(int64_t longest, int64_t most) {
    const int64_t d = shape_.d_model, widest = std::max({3 * d, shape_.d_ffn, shape_.d_memory});
    const int64_t products = kMostRows * 64, scores = kQueries * (64 + score_room(most) + 1);
    const int64_t keys = kLanes * up_to(head_width(), 4);
    for (EncoderScratch& scratch : scratch_) {
      scratch.reserve(kWideRoom + std::max({products, scores, keys}), kMostRows * stride_of(widest));
      scratch.prepared.reserve(kMostRows, widest);
      scratch.prepared.reserve(kQueries, most);
    }
    if (longest <= longest_) return;
    heads_.clear();
    longest_ = 0;
    for (size_t i = 0; i < scratch_.size(); ++i)
      heads_.push_back(std::make_unique<EncoderHead>(kind(), head_width(), longest));
    longest_ = longest;
  }

  // Queries, keys and values of some rows.
  void project(int64_t layer, int64_t first, int64_t last, EncoderScratch& scratch) {
    const int64_t stride = stride_of(shape_.d_model), wide = stride_of(3 * shape_.d_model);
    multiply_rows(shape_.layers[layer].qkv, x_.get() + first * stride, stride, last - first,
                  into(wide_.get() + first * wide, wide), scratch);
  }

  // Each sequence attends to itself, or only its first token does: then its mixture lies in the sequence's own row.
  void attend_within(const cellscribe_cpu_bert_run& p, bool is_first_only) {
    const int64_t d = shape_.d_model, stride = stride_of(d), wide = stride_of(3 * d), width = head_width();
    threads_.run(p.num_sequences * shape_.n_heads, [&](int64_t task, int thread) {
      const int64_t sequence = task / shape_.n_heads, at = task % shape_.n_heads * width;
      const int64_t start = p.starts[sequence], count = p.starts[sequence + 1] - start;
      if (count == 0) return;
      EncoderScratch& scratch = scratch_[static_cast<size_t>(thread)];
      EncoderHead& head = *heads_[static_cast<size_t>(thread)];
      const float* from = wide_.get() + start * wide + at;
      head.resize(count);
      for (int64_t row = 0; row < count; row += kLanes) {
        const int64_t some = std::min<int64_t>(kLanes, count - row);
        head.put(row, some, from + row * wide + d, from + row * wide + 2 * d, wide, scratch.work.get());
      }
      const int64_t asking = is_first_only ? 1 : count;
      float* to = mixed_.get() + (is_first_only ? sequence : start) * stride + at;
      for (int64_t row = 0; row < asking; row += kQueries) {
        const int64_t some = std::min(kQueries, asking - row);
        attend_rows(head, from + row * wide, wide, some, to + row * stride, stride, scratch);
      }
    });
  }

  // Keeps the states of first tokens; their number.
  int64_t keep_first(const cellscribe_cpu_bert_run& p) {
    const int64_t stride = stride_of(shape_.d_model);
    for (int64_t i = 0; i < p.num_sequences; ++i)  // a sequence starts at its own number or after it
      std::memmove(x_.get() + i * stride, x_.get() + p.starts[i] * stride, static_cast<size_t>(shape_.d_model) * 4);
    return p.num_sequences;
  }

  // Queries to a cell.
  void ask(const cellscribe_cpu_bert_layer& w, int64_t first, int64_t last, EncoderScratch& scratch) {
    const int64_t stride = stride_of(shape_.d_model);
    multiply_rows(w.cross_q, x_.get() + first * stride, stride, last - first, into(wide_.get() + first * stride, stride),
                  scratch);
  }

  void attend_across(BertMemory& memory, int64_t layer, int64_t rows) {
    const int64_t stride = stride_of(shape_.d_model), width = head_width(), parts = (rows + kQueries - 1) / kQueries;
    threads_.run(shape_.n_heads * parts, [&](int64_t task, int thread) {
      const int64_t head = task / parts, first = task % parts * kQueries, some = std::min(kQueries, rows - first);
      attend_rows(memory.head(layer * shape_.n_heads + head), wide_.get() + first * stride + head * width, stride, some,
                  mixed_.get() + first * stride + head * width, stride, scratch_[static_cast<size_t>(thread)]);
    });
  }

  // Queries [count, D], `from_stride` apart, in floats.
  void attend_rows(const EncoderHead& head, const float* from, int64_t from_stride, int64_t count, float* to,
                   int64_t to_stride, EncoderScratch& scratch) const {
    const int64_t width = head_width();
    const float scale = 1.44269504088896341f / std::sqrt(static_cast<float>(width));
    Rows queries{from, from_stride, nullptr, nullptr, 0};
    if (kind() != kFloat) {
      const int64_t room = 2 * EncoderHead::words_of(kind(), width);
      auto* rounded = reinterpret_cast<uint16_t*>(scratch.hidden.get());
      for (int64_t row = 0; row < count; ++row) {
        rounded[row * room + room - 1] = 0;  // an odd width leaves a gap
        round_row(from + row * from_stride, width, rounded + row * room);
      }
      queries = {rounded, room, nullptr, nullptr, 0};
    }
    attend(head, queries, count, scale, to, to_stride, scratch);
  }

  // x = norm(x + mixed · W)
  void add_normed(void* weight, const float* norm, float eps, int64_t first, int64_t last, EncoderScratch& scratch) {
    const int64_t d = shape_.d_model, stride = stride_of(d);
    float* x = x_.get() + first * stride;
    multiply_rows(weight, mixed_.get() + first * stride, stride, last - first, into(x, stride, true), scratch);
    norm_rows(x, last - first, stride, d, norm, eps);
  }

  void feed_forward(const cellscribe_cpu_bert_layer& w, int64_t first, int64_t last, EncoderScratch& scratch) {
    const int64_t d = shape_.d_model, f = shape_.d_ffn, stride = stride_of(d), wide = stride_of(f);
    const int64_t count = last - first;
    float *x = x_.get() + first * stride, *hidden = scratch.hidden.get();
    multiply_rows(w.linear1, x, stride, count, into(hidden, wide, false, shape_.is_gelu == 0), scratch);
    if (shape_.is_gelu != 0)
      for (int64_t row = 0; row < count; ++row) {
        float* one = hidden + row * wide;
        activate_row<CELLSCRIBE_GELU, false>(one, f, one);
      }
    multiply_rows(w.linear2, hidden, wide, count, into(x, stride, true), scratch);
    norm_rows(x, count, stride, d, w.norm2, w.eps2);
  }

  // Parts of equal numbers of panels of rows, a few for each thread.
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

  cellscribe_cpu_bert shape_;
  Threads& threads_;
  std::vector<EncoderScratch> scratch_;
  std::vector<std::unique_ptr<EncoderHead>> heads_;  // of one thread each
  Array<float> x_, mixed_, wide_;
  int64_t rows_ = 0, longest_ = 0, remembered_ = 0;
};

}  // namespace CELLSCRIBE_ISA
