// The C functions of the encoder; part of api.cpp.
#pragma once
#include "encoder.h"

CELLSCRIBE_EXPORT void* CELLSCRIBE_C(encoder_new)(const cellscribe_cpu_encoder* encoder, void* threads) {
  void* made = nullptr;
  guarded([&] { made = new Encoder(*encoder, *static_cast<Threads*>(threads)); });
  return made;
}

CELLSCRIBE_EXPORT void CELLSCRIBE_C(encoder_free)(void* encoder) { delete static_cast<Encoder*>(encoder); }

CELLSCRIBE_EXPORT int32_t CELLSCRIBE_C(encoder_run)(void* encoder, const cellscribe_cpu_cell* cell) {
  return guarded([&] { static_cast<Encoder*>(encoder)->run(*cell); });
}

// Whole cells, each by one thread and its own encoder [threads], which has a crew of that thread alone: no thread waits
// for another before the last cells.
CELLSCRIBE_EXPORT int32_t CELLSCRIBE_C(encoder_run_many)(void* const* encoders, const cellscribe_cpu_cell* cells,
                                                         int64_t count, void* threads) {
  return guarded([&] {
    static_cast<Threads*>(threads)->run(
        count, [&](int64_t cell, int thread) { static_cast<Encoder*>(encoders[thread])->run(cells[cell]); });
  });
}

// Changes with the structs and the functions: a library of another release is refused.
CELLSCRIBE_EXPORT int64_t CELLSCRIBE_C(encoder_fingerprint)() {
  return static_cast<int64_t>(sizeof(cellscribe_cpu_encoder_layer) * 1009 * 1009 + sizeof(cellscribe_cpu_table) * 31 +
                              sizeof(cellscribe_cpu_encoder) * 1009 + sizeof(cellscribe_cpu_cell) + 1);
}
