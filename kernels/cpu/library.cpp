// What all instruction sets share: which of them this machine has, and the crew of threads.
#include <cstdint>
#include <new>
#include <system_error>

#include "cellscribe/cpu.h"
#include "threads.h"

#define CELLSCRIBE_EXPORT extern "C" __attribute__((visibility("default")))

// The instruction sets that run here, best first, separated by blanks; empty on older machines.
CELLSCRIBE_EXPORT const char* cellscribe_cpu_sets() {
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  [[maybe_unused]] bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                __builtin_cpu_supports("avx512vnni");
#if defined(CELLSCRIBE_WITH_AVX512BF16)
  // Intel multiplies bf16 in its tiles, and in vectors at a third of the rate of floats (119 against 343 GFLOP/s with two
  // cores of an Emerald Rapids); AMD at twice that rate.
  if (avx512 && __builtin_cpu_supports("avx512bf16"))
    return __builtin_cpu_is("intel") ? "avx512 avx512bf16 avx2" : "avx512bf16 avx512 avx2";
#endif
#if defined(CELLSCRIBE_WITH_AVX512)
  if (avx512) return "avx512 avx2";
#endif
  return avx2 ? "avx2" : "";
}

constexpr size_t kSignatures = 2;  // rises when a function takes other arguments

// Changes with the structs and functions: a library of another release is refused.
CELLSCRIBE_EXPORT int64_t cellscribe_cpu_fingerprint() {
  return static_cast<int64_t>(sizeof(cellscribe_cpu_cross) * 1009 * 1009 + sizeof(cellscribe_cpu_layer) * 1009 * 31 +
                              sizeof(cellscribe_cpu_decoder) * 1009 + sizeof(cellscribe_cpu_call) + kSignatures);
}

CELLSCRIBE_EXPORT void* cellscribe_threads_new(int32_t count) {
  try {
    return new cellscribe::Threads(count);
  } catch (const std::system_error&) {
    return nullptr;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

CELLSCRIBE_EXPORT void cellscribe_threads_free(void* threads) { delete static_cast<cellscribe::Threads*>(threads); }
