// The C functions of BERT; part of api.cpp.
#pragma once
#include "bert.h"

CELLSCRIBE_EXPORT void* CELLSCRIBE_C(bert_new)(const cellscribe_cpu_bert* bert, void* threads) {
  void* made = nullptr;
  guarded([&] { made = new Bert(*bert, *static_cast<Threads*>(threads)); });
  return made;
}

CELLSCRIBE_EXPORT void CELLSCRIBE_C(bert_free)(void* bert) { delete static_cast<Bert*>(bert); }

CELLSCRIBE_EXPORT int32_t CELLSCRIBE_C(bert_run)(void* bert, const cellscribe_cpu_bert_run* p) {
  return guarded([&] { static_cast<Bert*>(bert)->run(*p); });
}

// Room for the keys and values of a cell of `most` genes.
CELLSCRIBE_EXPORT void* CELLSCRIBE_C(bert_memory_new)(void* bert, int64_t most) {
  void* made = nullptr;
  guarded([&] { made = static_cast<Bert*>(bert)->new_memory(most).release(); });
  return made;
}

CELLSCRIBE_EXPORT void CELLSCRIBE_C(bert_memory_free)(void* memory) { delete static_cast<BertMemory*>(memory); }

CELLSCRIBE_EXPORT int32_t CELLSCRIBE_C(bert_remember)(void* bert, void* memory, const float* states, int64_t count) {
  return guarded([&] { static_cast<Bert*>(bert)->remember(*static_cast<BertMemory*>(memory), states, count); });
}

// Changes with the structs: a library of another release is refused.
CELLSCRIBE_EXPORT int64_t CELLSCRIBE_C(bert_fingerprint)() {
  return static_cast<int64_t>(sizeof(cellscribe_cpu_bert_layer) * 1009 * 1009 + sizeof(cellscribe_cpu_bert) * 1009 +
                              sizeof(cellscribe_cpu_bert_run));
}
