// A fixed crew of threads that run the tasks of one loop at a time.
#pragma once
#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace cellscribe {

// Tasks are claimed one by one, so that a core that is taken away for a while holds nobody up, and a thread that was not
// woken in time is not waited for; what a task computes must not depend on the thread that runs it. The caller works
// too. Between loops the others spin for a moment, as a step is hundreds of short loops, and then sleep.
class Threads {
 public:
  explicit Threads(int count);
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  int count() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls work(task, thread) for every task below `tasks`.
  template <class Work>
  void run(int64_t tasks, Work&& work) {
    if (tasks <= 0) return;
    if (workers_.empty() || tasks == 1) {
      for (int64_t i = 0; i < tasks; ++i) work(i, 0);
      return;
    }
    using Plain = std::remove_reference_t<Work>;
    call_ = [](void* context, int64_t task, int thread) { (*static_cast<Plain*>(context))(task, thread); };
    context_ = const_cast<void*>(static_cast<const void*>(&work));
    start(static_cast<uint32_t>(tasks));
  }

 private:
  void start(uint32_t tasks);
  void stop();
  void serve(int thread);
  void work(uint32_t round, int thread);

  using Call = void (*)(void*, int64_t, int);
  Call call_ = nullptr;  // read by those who hold a task: the loop cannot end before it
  void* context_ = nullptr;
  std::atomic<uint32_t> tasks_{0};
  alignas(64) std::atomic<uint64_t> next_{0};  // the round, and its next task
  alignas(64) std::atomic<uint32_t> done_{0};
  alignas(64) std::atomic<uint32_t> round_{0};
  std::atomic<bool> stop_{false}, failed_{false};
  std::vector<std::thread> workers_;
};

}  // namespace cellscribe
