// Runs every kernel of every path on odd shapes, in heap buffers of exactly the needed size, so
// that a sanitizer sees each number read or written beyond them. Prints one digest per path and
// fails where two differ. Started by test_sanitize.py; without sanitizers it also shows whether
// another processor gives the same bits.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "../../kernels/cache.h"
#include "../../kernels/delta.h"
#include "../../kernels/dispatch.h"
#include "../../kernels/experts.h"
#include "../../kernels/operations.h"
#include "../../kernels/pool.h"

using namespace gangline;

namespace {

// Memory of exactly n things, at an address that is a multiple of alignof(T) only.
template <class T>
class Exact {
 public:
  explicit Exact(size_t n)
      : n_(n), bytes_(new uint8_t[n * sizeof(T) + sizeof(T)]), at_(bytes_.get() + sizeof(T)) {}
  T* data() { return reinterpret_cast<T*>(at_); }
  T& operator[](size_t i) { return data()[i]; }
  size_t size() const { return n_; }

 private:
  size_t n_;
  std::unique_ptr<uint8_t[]> bytes_;
  uint8_t* at_;
};

class Random {  // xorshift64*, the same everywhere
 public:
  uint32_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return static_cast<uint32_t>((state_ * 0x2545f4914f6cdd1dull) >> 32);
  }
  float number() { return static_cast<float>(static_cast<int32_t>(next())) / 1e9f; }
  Exact<float> numbers(int64_t n) {
    Exact<float> x(static_cast<size_t>(n));
    for (size_t i = 0; i < x.size(); ++i) x[i] = number();
    return x;
  }
  // Bytes of a checkpoint at an odd address; half precision numbers stay finite.
  Exact<uint8_t> bytes(int64_t n, bool halves) {
    Exact<uint8_t> x(static_cast<size_t>(n));
    for (size_t i = 0; i < x.size(); ++i)
      x[i] = static_cast<uint8_t>(next() & (halves && i % 2 ? 0xbf : 0xff));
    return x;
  }

 private:
  uint64_t state_ = 88172645463325252ull;
};

class Digest {  // FNV-1a over bits
 public:
  void add(Exact<float>& x) {
    for (size_t i = 0; i < x.size(); ++i) {
      uint32_t bits;
      std::memcpy(&bits, &x[i], 4);
      if ((bits & 0x7fffffffu) > 0x7f800000u) bits = 0x7fc00000u;  // any NaN
      value_ = (value_ ^ bits) * 0x100000001b3ull;
    }
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325ull;
};

struct HeapMatrix {
  Exact<uint8_t> data, scales, offsets;
  Matrix matrix;
};

HeapMatrix dense(Random& random, Dtype dtype, int64_t n, int64_t k) {
  const int64_t size = dtype_bytes(dtype);
  HeapMatrix w{Exact<uint8_t>(static_cast<size_t>(n * k * size)), Exact<uint8_t>(0),
               Exact<uint8_t>(0), {}};
  if (dtype == Dtype::f32) {
    for (int64_t i = 0; i < n * k; ++i) {
      const float x = random.number();
      std::memcpy(w.data.data() + 4 * i, &x, 4);
    }
  } else {
    w.data = random.bytes(n * k * size, true);
  }
  w.matrix = {w.data.data(), nullptr, nullptr, n, k, 0, 0, dtype};
  return w;
}

HeapMatrix quantized(Random& random, int bits, Dtype dtype, int64_t n, int64_t k, int group) {
  HeapMatrix w{random.bytes(n * k * bits / 8, false), Exact<uint8_t>(0), Exact<uint8_t>(0), {}};
  HeapMatrix scales = dense(random, dtype, n, k / group);
  HeapMatrix offsets = dense(random, dtype, n, k / group);
  w.scales = std::move(scales.data);
  w.offsets = std::move(offsets.data);
  w.matrix = {w.data.data(), w.scales.data(), w.offsets.data(), n, k, bits, group, dtype};
  return w;
}

Part packed(const Matrix& m) {
  Part part;
  part.packed = pack(m, part.memory);
  return part;
}

void exercise_matrix(Random& random, Digest& digest, const Matrix& m) {
  Part part;
  if (m.bits) part = packed(m);
  else part.dense = m;
  Weight w;
  w.parts = {part, part};
  w.n = 2 * m.n;
  w.k = m.k;
  for (int64_t t : {1, 5, 66, 93}) {
    Exact<float> x = random.numbers(t * m.k), bias = random.numbers(w.n);
    Exact<float> y = random.numbers(t * w.n);
    linear(x.data(), t, w, bias.data(), y.data(), true);
    digest.add(y);
    linear(x.data(), t, w, nullptr, y.data(), false);
    digest.add(y);
  }
  const int32_t ids[] = {static_cast<int32_t>(m.n - 1), 0};
  Exact<float> rows(static_cast<size_t>(2 * m.k));
  embed(m, ids, 2, 1.5f, rows.data());
  digest.add(rows);
}

void exercise_linear(Random& random, Digest& digest) {
  for (Dtype dtype : {Dtype::f32, Dtype::f16, Dtype::bf16}) {
    for (int64_t n : {1, 5, 33}) {
      for (int64_t k : {1, 15, 16, 33, 80}) {
        HeapMatrix w = dense(random, dtype, n, k);
        exercise_matrix(random, digest, w.matrix);
      }
      for (int bits : {2, 3, 4, 5, 6, 8}) {
        for (int group : {16, 32, 64, 128}) {
          if (bits != 4 && bits != 8 && (dtype != Dtype::f16 || group > 32)) continue;
          HeapMatrix w = quantized(random, bits, dtype, n, 3 * group, group);
          exercise_matrix(random, digest, w.matrix);
        }
      }
    }
  }
}

void exercise_mlp(Random& random, Digest& digest) {
  for (Activation act : {Activation::silu, Activation::gelu, Activation::gelu_tanh,
                         Activation::relu2, Activation::swiglu_clamped}) {
    HeapMatrix gate_up = dense(random, Dtype::bf16, 46, 19), down = dense(random, Dtype::f32, 7, 23);
    Part first, second;
    first.dense = gate_up.matrix;
    second.dense = down.matrix;
    Weight a{{first}, 46, 19}, b{{second}, 7, 23};
    Exact<float> x = random.numbers(3 * 19), residual = random.numbers(3 * 7);
    x[5] = 90.0f;
    x[6] = -90.0f;
    gated_mlp(x.data(), 3, a, nullptr, b, nullptr, act, residual.data(), true);
    digest.add(residual);
  }
  const HeapMatrix gate = quantized(random, 4, Dtype::f16, 128, 96, 32);
  const HeapMatrix up = quantized(random, 3, Dtype::bf16, 128, 96, 32);
  const HeapMatrix down = quantized(random, 4, Dtype::f16, 40, 128, 64);
  Weight a, b;
  for (const HeapMatrix* part : {&gate, &up}) a.append(packed(part->matrix));
  b.append(packed(down.matrix));
  for (int64_t t : {1, 70}) {
    Exact<float> x = random.numbers(t * 96), bias = random.numbers(256), y = random.numbers(t * 40);
    gated_mlp(x.data(), t, a, bias.data(), b, nullptr, Activation::silu, y.data(), true);
    digest.add(y);
  }
}

struct Heads {
  int64_t n, n_kv, head_dim, value_dim, window;
  float soft_cap;
  bool shared;
};

void exercise_attention(Random& random, Digest& digest) {
  for (const Heads& heads : {Heads{18, 2, 2, 2, 0, 0, false}, Heads{18, 2, 10, 10, 3, 0, false},
                             Heads{4, 2, 32, 32, 64, 2, false}, Heads{4, 4, 80, 5, 65, 0, false},
                             Heads{3, 1, 17, 80, 0, 0, false}, Heads{11, 1, 38, 33, 0, 2, true},
                             Heads{3, 1, 576, 512, 0, 0, true}}) {
    const int64_t dim = heads.head_dim, half = dim / 2, n_rotated = heads.n + heads.n_kv;
    const int64_t width = n_rotated * dim + (heads.shared ? 0 : heads.n_kv * heads.value_dim);
    const FusedRows rows = {heads.n, heads.n_kv, dim, width};
    const int32_t slots[] = {2, 0}, starts[] = {0, 0}, counts[] = {70, 3};
    const Batch batch(slots, starts, counts, 2, 3, 70);
    const Dtype dtype = dim % 32 ? Dtype::f32 : Dtype::f16;
    const Cache cache(3, 70, heads.n_kv, dim, heads.value_dim, heads.shared, dtype);
    Exact<float> qkv = random.numbers(73 * width), table = random.numbers(70 * 2 * half);
    Exact<float> each = random.numbers(dim), all = random.numbers(heads.n * dim);
    Exact<float> sinks = random.numbers(heads.n);
    Exact<float> out(static_cast<size_t>(73 * heads.n * heads.value_dim));
    head_norm(qkv.data(), 73, rows, {all.data(), false}, {each.data(), true}, 1e-5f);
    rope(qkv.data(), rows, table.data(), half, batch);
    for (bool with_sinks : {false, true}) {
      attend(qkv.data(), rows, cache, batch, {0.1f, heads.soft_cap, heads.window},
             with_sinks ? sinks.data() : nullptr, out.data());
      digest.add(out);
    }
    gated_norm(qkv.data(), qkv.data(), 73, width / dim, dim, each.data(), 1e-5f);
    digest.add(qkv);
  }
}

void exercise_experts(Random& random, Digest& digest) {
  for (Scoring scoring : {Scoring::softmax, Scoring::softmax_chosen, Scoring::sigmoid}) {
    HeapMatrix router = dense(random, Dtype::f32, 18, 21);
    Part part;
    part.dense = router.matrix;
    const RoutingRules rules = {18, 5, scoring, true, 1.5f, 6, 3};
    Exact<float> x = random.numbers(9 * 21), correction = random.numbers(18);
    x[30] = HUGE_VALF - HUGE_VALF;
    Exact<int32_t> experts(9 * 5);
    Exact<float> weights(9 * 5);
    route(x.data(), 9, {{part}, 18, 21}, rules, nullptr, correction.data(), experts.data(),
          weights.data());
    digest.add(weights);
    for (size_t i = 0; i < experts.size(); ++i) weights[i] = static_cast<float>(experts[i]);
    digest.add(weights);
  }
  for (bool packed : {false, true}) {
    const int64_t n_experts = 4, d = 64, ffn = 96, t = 23;
    std::vector<HeapMatrix> held;
    std::vector<Weight> gate_up(n_experts), down(n_experts);
    const auto part = [&](int64_t n, int64_t k) {
      held.push_back(packed ? quantized(random, 4, Dtype::f16, n, k, 32)
                            : dense(random, Dtype::bf16, n, k));
      Part made;
      if (packed) made.packed = pack(held.back().matrix, made.memory);
      else made.dense = held.back().matrix;
      return made;
    };
    for (size_t e = 0; e < gate_up.size(); ++e) {
      gate_up[e].append(part(ffn, d));
      gate_up[e].append(part(ffn, d));
      down[e].append(part(d, ffn));
    }
    Exact<int32_t> experts(t * 2);
    for (size_t i = 0; i < experts.size(); ++i) experts[i] = i % 2 ? 3 : i % 5 ? 0 : 1;
    Exact<float> x = random.numbers(t * d), weights = random.numbers(t * 2);
    Exact<float> bias = random.numbers(n_experts * 2 * ffn), y = random.numbers(t * d);
    for (int64_t rows : {int64_t{1}, t}) {
      mixture(x.data(), rows, experts.data(), weights.data(), 2, gate_up, bias.data(), down,
              nullptr, Activation::silu, y.data());
      digest.add(y);
    }
  }
}

void exercise_delta(Random& random, Digest& digest) {
  for (const DeltaSizes& sizes : {DeltaSizes{2, 4, 16, 16, 4}, DeltaSizes{3, 3, 5, 90, 8},
                                  DeltaSizes{1, 1, 1, 1, 1}}) {
    const int64_t t = 7, width = sizes.width(), n_heads = sizes.n_value_heads;
    Exact<float> mixed = random.numbers(t * width), beta = random.numbers(t * n_heads);
    Exact<float> decay = random.numbers(t * n_heads), taps = random.numbers(width * sizes.taps);
    Exact<float> decay_log = random.numbers(n_heads), decay_bias = random.numbers(n_heads);
    Exact<float> out(static_cast<size_t>(t * sizes.values_width()));
    DeltaState state(3, sizes);
    const DeltaInputs in = {mixed.data(), beta.data(),      decay.data(),
                            taps.data(),  decay_log.data(), decay_bias.data()};
    for (int32_t start : {0, 5}) {
      const int32_t slots[] = {2, 0}, starts[] = {start, start}, counts[] = {5, 2};
      delta_net(in, state, Batch(slots, starts, counts, 2, 3, 70), out.data());
      digest.add(out);
    }
  }
}

void exercise_heads(Random& random, Digest& digest) {
  for (Dtype dtype : {Dtype::f32, Dtype::bf16}) {
    for (int64_t n : {1, 17}) {
      HeapMatrix w = dense(random, dtype, 3 * n, 19);
      Exact<float> x = random.numbers(5 * 3 * 19), y(static_cast<size_t>(5 * 3 * n));
      linear_heads(x.data(), 5, w.matrix, 3, y.data());
      digest.add(y);
    }
  }
}

void exercise_rows(Random& random, Digest& digest) {
  for (int64_t d : {1, 15, 16, 70}) {
    Exact<float> x = random.numbers(4 * d), w = random.numbers(d), gates = random.numbers(4 * d);
    Exact<float> y(static_cast<size_t>(4 * d));
    for (Norm kind : {Norm::rms, Norm::layer}) {
      norm(kind, x.data(), 4, d, w.data(), 1e-5f, y.data());
      digest.add(y);
    }
    add_scaled(y.data(), x.data(), 4 * d, 0.3f);
    sigmoid_gate(y.data(), gates.data(), 4, d, false);
    sigmoid_gate(y.data(), gates.data(), 4, d, true);
    soft_cap(y.data(), 4 * d, 3.0f);
    digest.add(y);
    Exact<float> sum(1);
    sum[0] = kernels().sum(x.data(), 4 * d) > 1e30f ? 1.0f : 0.0f;
    digest.add(sum);
  }
}

}  // namespace

int main() {
  uint64_t first = 0;
  bool agree = true;
  for (const std::string& path : available_paths()) {
    use_path(path);
    for (int n_threads : {1, 3}) {
      set_threads(n_threads);
      Random random;
      Digest digest;
      exercise_linear(random, digest);
      exercise_mlp(random, digest);
      exercise_attention(random, digest);
      exercise_experts(random, digest);
      exercise_delta(random, digest);
      exercise_heads(random, digest);
      exercise_rows(random, digest);
      std::printf("%s %d %016llx\n", path.c_str(), n_threads,
                  static_cast<unsigned long long>(digest.value()));
      if (!first) first = digest.value();
      agree = agree && first == digest.value();
    }
  }
  stop_threads();
  return agree ? 0 : 1;
}
