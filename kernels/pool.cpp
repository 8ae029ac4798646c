// A job is published in one atomic word, the ticket: (generation, number of chunks, next chunk).
// Whoever raises "next chunk" owns that chunk, and the job cannot end before the chunk is done; so
// a thread that comes late finds nothing to claim and never looks at a job that is over.
#include "pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64) || defined(__i386__)
#include <immintrin.h>
#endif

namespace gangline {
namespace {

using Clock = std::chrono::steady_clock;

// A thread that has nothing to do looks for work this long before it sleeps: the next operation
// of a step usually follows within a few microseconds.
constexpr auto kSpin = std::chrono::microseconds(30);

constexpr int kMaxChunks = 0xffff;

void pause() {
#if defined(__x86_64__) || defined(_M_X64) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
  __asm__ __volatile__("yield");
#endif
}

uint64_t next_of(uint64_t ticket) { return ticket & 0xffff; }
uint64_t total_of(uint64_t ticket) { return (ticket >> 16) & 0xffff; }
bool has_work(uint64_t ticket) { return next_of(ticket) < total_of(ticket); }

class Pool {
 public:
  int size() const { return n_threads_.load(std::memory_order_relaxed); }

  void resize(int n) {
    std::lock_guard<std::mutex> only(caller_);
    stop_workers();
    n_threads_ = n;
    stopping_ = false;
    for (int i = 1; i < n; ++i) workers_.emplace_back([this] { work(); });
  }

  void run(int n_chunks, void (*run)(void*, int), void* context) {
    std::unique_lock<std::mutex> only(caller_, std::try_to_lock);
    if (!only.owns_lock() || workers_.empty() || n_chunks > kMaxChunks) {
      for (int chunk = 0; chunk < n_chunks; ++chunk) run(context, chunk);
      return;
    }
    run_ = run;
    context_ = context;
    n_done_.store(0, std::memory_order_relaxed);
    const uint64_t generation = (ticket_.load() >> 32) + 1;
    ticket_.store(generation << 32 | static_cast<uint64_t>(n_chunks) << 16);
    if (n_asleep_.load() > 0) {
      {
        std::lock_guard<std::mutex> lock(sleep_);
      }
      wake_.notify_all();
    }
    claim_all();
    for (int spins = 0; n_done_.load(std::memory_order_acquire) < n_chunks; ++spins) {
      if (spins < 2000)
        pause();
      else
        std::this_thread::yield();
    }
  }

 private:
  // Do chunks until none is left.
  void claim_all() {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (has_work(ticket)) {
      if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                         std::memory_order_acquire))
        continue;
      run_(context_, static_cast<int>(next_of(ticket)));
      n_done_.fetch_add(1, std::memory_order_release);
      ticket = ticket_.load(std::memory_order_acquire);
    }
  }

  void work() {
    while (!stopping_.load(std::memory_order_acquire)) {
      claim_all();
      if (!wait_spinning()) wait_asleep();
    }
  }

  bool wake_now() const { return stopping_.load() || has_work(ticket_.load()); }

  bool wait_spinning() const {
    const auto end = Clock::now() + kSpin;
    do {
      for (int i = 0; i < 32; ++i) {
        if (wake_now()) return true;
        pause();
      }
    } while (Clock::now() < end);
    return false;
  }

  void wait_asleep() {
    std::unique_lock<std::mutex> lock(sleep_);
    n_asleep_.fetch_add(1);  // before the last look at the ticket: the caller looks the other way
    wake_.wait(lock, [this] { return wake_now(); });
    n_asleep_.fetch_sub(1);
  }

  void stop_workers() {
    {
      std::lock_guard<std::mutex> lock(sleep_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
  }

  std::mutex caller_;  // held while a job runs
  std::mutex sleep_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
  std::atomic<int> n_threads_{1};
  std::atomic<int> n_asleep_{0};
  std::atomic<bool> stopping_{false};
  void (*run_)(void*, int) = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int> n_done_{0};
};

// Never destroyed: threads may outlive static objects when a process ends.
Pool& pool() {
  static Pool* const only = new Pool;
  return *only;
}

}  // namespace

void set_threads(int n) { pool().resize(n); }
int threads() { return pool().size(); }
void stop_threads() { pool().resize(1); }

void run_chunks(int n_chunks, void (*run)(void* context, int chunk), void* context) {
  pool().run(n_chunks, run, context);
}

}  // namespace gangline
