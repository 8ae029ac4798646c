// The threads of this process that run kernels: one pool, the calling thread counts as one.
#pragma once

#include <cstdint>

namespace gangline {

// Use n threads from now on, n >= 1; waits for the ones that are no longer needed.
void set_threads(int n);
int threads();

// End all threads but the caller's; what is run afterwards runs on the caller alone.
void stop_threads();

// Call run(context, chunk) for every 0 <= chunk < n_chunks, on as many threads as there are, and
// return when all are done. Chunks are claimed one by one, so the caller never waits for a thread
// that is still asleep. A second caller at the same time does its chunks alone.
void run_chunks(int n_chunks, void (*run)(void* context, int chunk), void* context);

// Split 0 <= i < n into ranges and call f(first, last) for each. `total_ns` is a guess of what all
// of it takes on one thread: small work stays on the caller, since waking threads costs more.
template <class F>
void parallel_for(int64_t n, double total_ns, F f) {
  constexpr double kWorthwhileNs = 40e3;  // below this the caller is done before others wake
  constexpr double kChunkNs = 10e3, kLongChunkNs = 200e3;
  const int n_threads = threads();
  int64_t n_chunks = 1;
  if (n_threads > 1 && total_ns > kWorthwhileNs) {
    // Few chunks, so that streams of memory are long; more for long work, at whose end a thread on a
    // slower core would be waited for.
    const auto at_most = [&](double ns, int each) {
      const int64_t wanted = static_cast<int64_t>(total_ns / ns), most = int64_t{each} * n_threads;
      return wanted < most ? wanted : most;
    };
    const int64_t few = at_most(kChunkNs, 4), many = at_most(kLongChunkNs, 16);
    n_chunks = few < many ? many : few;
    if (n_chunks > n) n_chunks = n;
  }
  if (n_chunks <= 1) {
    if (n > 0) f(int64_t{0}, n);
    return;
  }
  struct Context {
    F& f;
    int64_t n, n_chunks;
  } context{f, n, n_chunks};
  run_chunks(
      static_cast<int>(n_chunks),
      [](void* pointer, int chunk) {
        const Context& c = *static_cast<Context*>(pointer);
        c.f(c.n * chunk / c.n_chunks, c.n * (chunk + 1) / c.n_chunks);
      },
      &context);
}

}  // namespace gangline
