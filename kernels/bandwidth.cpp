// What memory gives when it is read in streams: the number that decode speed follows.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "dispatch.h"
#include "operations.h"

namespace gangline {

double read_bandwidth(int64_t bytes, int n_threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  const Kernels& run = kernels();
  const int64_t n_each = std::max<int64_t>(bytes / 4 / n_threads, 1024);
  // Written, not only allocated: untouched pages would all be one page of zeros.
  std::vector<float> memory(static_cast<size_t>(n_each * n_threads), 1.0f);
  std::atomic<int> n_ready{0};
  std::atomic<bool> go{false}, stop{false};
  std::atomic<int64_t> n_passes{0};
  std::atomic<float> sink{0.0f};
  std::vector<std::thread> readers;
  for (int i = 0; i < n_threads; ++i) {
    readers.emplace_back([&, i] {
      const float* mine = memory.data() + i * n_each;
      sink.store(run.sum(mine, n_each));  // warm-up, not counted
      n_ready.fetch_add(1);
      while (!go.load()) std::this_thread::yield();
      do {
        sink.store(run.sum(mine, n_each));
        n_passes.fetch_add(1);
      } while (!stop.load());
    });
  }
  while (n_ready.load() < n_threads) std::this_thread::yield();
  const auto start = Clock::now();
  go = true;
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  stop = true;
  for (std::thread& reader : readers) reader.join();
  const double elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  return static_cast<double>(n_passes.load()) * static_cast<double>(n_each) * 4.0 / elapsed;
}

}  // namespace gangline
