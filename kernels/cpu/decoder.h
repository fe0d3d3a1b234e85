// One pass of new tokens through the decoder.
#pragma once
#include "cellscribe/cpu.h"
#include "byte_caches.h"
#include "memory.h"
#include "prepare.h"

namespace CELLSCRIBE_ISA {

inline const Linear& linear(void* handle) { return *static_cast<const Linear*>(handle); }

// The cell of a slot: one memory for all layers and heads (latent), or keys and values of each.
struct Cell {
  std::vector<std::unique_ptr<Attended>> heads;  // one, or [layer * K + head]
  std::vector<int64_t> columns;                  // which gene each row is
};

class Slots {
 public:
  Slots(const cellscribe_cpu_decoder& shape, Threads& threads, int64_t slots, int64_t capacity, int64_t genes);

  // The memory [count, m] of a cell, rows of the genes `columns`.
  void fill(int64_t slot, const float* memory, const int64_t* columns, int64_t count);
  // Keys and values [K, length, D] of the first positions of a layer.
  void write(int64_t slot, int64_t layer, const float* keys, const float* values, int64_t length);
  void copy(int64_t from, int64_t to, int64_t layers, int64_t length);
  void run(const cellscribe_cpu_call& call);
  int64_t bytes() const;

 private:
  struct Scratch : AttendScratch {  // of one thread
    Array<float> row;
    std::vector<Query> queries;
    int64_t row_room = 0;
    float* reserve_row(int64_t count);
  };

  struct Pass;
  struct Tile {  // rows that attend together
    int64_t row, count;
  };

  void self_attention(Pass& pass, int64_t layer);
  void attend_caches(Pass& pass, int64_t layer);
  std::vector<Tile> tiles_of(const Pass& pass, int64_t group) const;
  void cross_attention(Pass& pass, int64_t layer);
  void cross_rows(Pass& pass, int64_t layer, int64_t row0, int64_t row1);
  void absorb(int64_t layer, int64_t row0, int64_t row1);
  void attend_heads(Pass& pass, int64_t layer, int64_t row0, int64_t row1);
  void release(Pass& pass, int64_t layer, int64_t row0, int64_t row1);
  void attend(const Linear& across, const Linear& along, Scratch& scratch, const float* const* queries, int64_t count,
              float scale, float* const* out);
  void note(Pass& pass, int64_t layer, int64_t row, int64_t head0, int64_t heads, int64_t block, const float* weights,
            int64_t room);
  void add_evidence(Pass& pass, int64_t row0, int64_t row1);
  void feed_forward(Pass& pass, const cellscribe_cpu_layer& layer);
  void keep_chosen(Pass& pass);
  void logits(Pass& pass);
  void states(Pass& pass);
  void norm(const float* x, const float* weight, const float* shift, float eps, float* out) const;
  void add_product(const Linear& w, Pass& pass, const float* post, float eps);
  void project(Cell& cell, int64_t layer, const float* memory, int64_t count);
  template <class Fill>
  void prepare(const Linear& w, int64_t rows, Fill&& fill);
  template <class Work>
  void over_rows(int64_t rows, Work&& work);
  template <class Work>
  void over_pieces(int64_t rows, Work&& work);
  void multiply(const Linear& w, int64_t rows, float* out, int64_t stride, bool add);

  int64_t cross_blocks() const { return shape_.is_latent ? (shape_.cross_heads + 7) / 8 : shape_.cross_kv_heads; }

  const cellscribe_cpu_decoder& shape_;
  Threads& threads_;
  Products products_;
  HeadShape heads_;
  int64_t genes_;
  std::vector<std::unique_ptr<Caches>> caches_;
  std::vector<Cell> cells_;
  std::vector<Scratch> scratch_;
  Prepared prepared_;
  Array<float> wide_, narrow_, absorbed_, mixed_, parts_;
  int64_t wide_room_ = 0, narrow_room_ = 0, absorbed_room_ = 0, mixed_room_ = 0, parts_room_ = 0;
};

}  // namespace CELLSCRIBE_ISA
