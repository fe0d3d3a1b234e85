#include "threads.h"

#include <immintrin.h>

#include <new>

namespace cellscribe {

namespace {
constexpr int kSpins = 20000;  // some hundred microseconds
}

Threads::Threads(int count) {
  try {
    for (int i = 1; i < count; ++i) workers_.emplace_back([this, i] { serve(i); });
  } catch (...) {
    stop();  // those that were started
    throw;
  }
}

Threads::~Threads() { stop(); }

void Threads::stop() {
  stop_.store(true);
  round_.fetch_add(1);
  round_.notify_all();
  for (std::thread& worker : workers_) worker.join();
  workers_.clear();
}

void Threads::start(uint32_t tasks) {
  uint32_t round = round_.load(std::memory_order_relaxed) + 1;
  // First nothing to claim: who still looks for tasks of the last round must not take the new number for it.
  next_.store(static_cast<uint64_t>(round) << 32 | UINT32_MAX, std::memory_order_seq_cst);
  tasks_.store(tasks, std::memory_order_release);
  done_.store(0, std::memory_order_relaxed);
  next_.store(static_cast<uint64_t>(round) << 32, std::memory_order_release);
  round_.store(round, std::memory_order_seq_cst);
  round_.notify_all();
  work(round, 0);
  for (int spins = 0; done_.load(std::memory_order_acquire) != tasks; ++spins) {
    if (spins < kSpins) _mm_pause();
    else std::this_thread::yield();  // to the thread whose task is missing
  }
  if (failed_.exchange(false)) throw std::bad_alloc();
}

void Threads::serve(int thread) {
  uint32_t seen = 0;
  while (true) {
    uint32_t now = round_.load(std::memory_order_acquire);
    for (int spins = 0; now == seen && spins < kSpins; ++spins) {
      _mm_pause();
      now = round_.load(std::memory_order_acquire);
    }
    if (now == seen) {
      round_.wait(seen, std::memory_order_acquire);
      now = round_.load(std::memory_order_acquire);
    }
    if (stop_.load()) return;
    if (now == seen) continue;
    seen = now;
    work(now, thread);
  }
}

void Threads::work(uint32_t round, int thread) {
  uint64_t state = next_.load(std::memory_order_acquire);
  while (static_cast<uint32_t>(state >> 32) == round &&
         static_cast<uint32_t>(state) < tasks_.load(std::memory_order_acquire)) {
    // Fails when another took the task, or the round is over: then `state` is what it is now.
    if (!next_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    try {
      call_(context_, static_cast<uint32_t>(state), thread);
    } catch (...) {  // nothing but memory that ran out; it must not leave a thread, nor the loop before its end
      failed_.store(true);
    }
    done_.fetch_add(1, std::memory_order_acq_rel);
    state = next_.load(std::memory_order_acquire);
  }
}

}  // namespace cellscribe
