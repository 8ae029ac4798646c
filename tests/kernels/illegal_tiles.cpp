// Tries tiles without having asked the kernel for them: an illegal instruction on every machine.
// Ends well if that is noticed, twice, and the process's own handler is back afterwards.
#include "../../kernels/amx.cpp"

#include <cstdio>

namespace {
volatile sig_atomic_t n_own = 0;
void own_handler(int) { ++n_own; }
}  // namespace

int main() {
  signal(SIGILL, own_handler);
  for (int i = 0; i < 2; ++i) {
    if (gangline::products_agree_if_legal()) return 1;
  }
  raise(SIGILL);
  std::printf("illegal, own handler called %d time\n", static_cast<int>(n_own));
  return n_own == 1 ? 0 : 2;
}
