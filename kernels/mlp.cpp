// The gate of a gated MLP: activation(gate) * up.
#include "rows.h"
#include "vector_math.h"

namespace gangline {
namespace GANGLINE_PATH {
namespace {

template <Activation A>
void gate_with(const float* gate, const float* up, int64_t n, float* out) {
  int64_t at = 0;
  for (; at + kLanes <= n; at += kLanes)
    store(out + at, gated<A>(load(gate + at), load(up + at)));
  const int64_t rest = n - at;
  if (rest)
    store_first(out + at, rest, gated<A>(load_first(gate + at, rest), load_first(up + at, rest)));
}

}  // namespace

void gate(const float* gate, const float* up, int64_t n, Activation activation, float* out) {
  switch (activation) {
    case Activation::silu: return gate_with<Activation::silu>(gate, up, n, out);
    case Activation::gelu: return gate_with<Activation::gelu>(gate, up, n, out);
    case Activation::gelu_tanh: return gate_with<Activation::gelu_tanh>(gate, up, n, out);
    case Activation::relu2: return gate_with<Activation::relu2>(gate, up, n, out);
    case Activation::swiglu_clamped:
      return gate_with<Activation::swiglu_clamped>(gate, up, n, out);
  }
}

}  // namespace GANGLINE_PATH
}  // namespace gangline
