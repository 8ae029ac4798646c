// The Python module gangline._kernels: checks shapes, releases the GIL, calls the operations.
//
// A mistake of the caller raises ValueError; after the checks here no batch and no tensor can make
// a kernel touch memory that is not its own.
#include "binding.h"
#include "dispatch.h"
#include "pool.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace gangline {
namespace {

void py_linear(Rows x, const HeldWeight& w, std::optional<Vector> bias, RowsOut y, bool add) {
  require(size(x, 1) == w.k, "linear: x does not have as many columns as the weight");
  require(size(y, 0) == size(x, 0) && size(y, 1) == w.n, "linear: y does not have shape (T, N)");
  const float* added = bias_of(bias, w.n);
  Release release;
  linear(x.data(), size(x, 0), w, added, y.data(), add);
}

void py_linear_heads(Rows x, const HeldHeads& w, RowsOut y) {
  require(size(x, 1) == w.n_heads * w.matrix.k,
          "linear_heads: x does not have as many columns as heads and weight");
  require(size(y, 0) == size(x, 0) && size(y, 1) == w.matrix.n,
          "linear_heads: y does not have shape (T, H N)");
  Release release;
  linear_heads(x.data(), size(x, 0), w.matrix, w.n_heads, y.data());
}

void py_embed(const HeldTable& table, Ints ids, float scale, RowsOut y) {
  require(size(y, 0) == size(ids, 0) && size(y, 1) == table.k(),
          "embed: y does not have shape (T, D)");
  for (int64_t i = 0; i < size(ids, 0); ++i)
    require(ids.data()[i] >= 0 && ids.data()[i] < table.n(), "embed: an id is outside the table");
  Release release;
  table.embed(ids.data(), size(ids, 0), scale, y.data());
}

template <Norm Kind>
void py_norm(Rows x, Vector w, float eps, RowsOut y) {
  require(size(w, 0) == size(x, 1), "norm: w does not have one number per column of x");
  require(size(y, 0) == size(x, 0) && size(y, 1) == size(x, 1),
          "norm: y does not have the shape of x");
  Release release;
  norm(Kind, x.data(), size(x, 0), size(x, 1), w.data(), eps, y.data());
}

void py_add(RowsOut residual, Rows x, float scale) {
  require(size(residual, 0) == size(x, 0) && size(residual, 1) == size(x, 1),
          "add: x does not have the shape of what it is added to");
  Release release;
  add_scaled(residual.data(), x.data(), size(x, 0) * size(x, 1), scale);
}

void py_sigmoid_gate(RowsOut x, Rows gate) {
  require(size(gate, 0) == size(x, 0) && (size(gate, 1) == size(x, 1) || size(gate, 1) == 1),
          "sigmoid_gate: the gate does not have shape (T, D) or (T, 1)");
  Release release;
  sigmoid_gate(x.data(), gate.data(), size(x, 0), size(x, 1), size(gate, 1) != size(x, 1));
}

void py_soft_cap(RowsOut x, float cap) {
  Release release;
  soft_cap(x.data(), size(x, 0) * size(x, 1), cap);
}

void py_gated_mlp(Rows x, const HeldWeight& gate_up, const HeldWeight& down,
                  const std::string& activation, RowsOut y, bool add,
                  std::optional<Vector> gate_up_bias, std::optional<Vector> down_bias) {
  require(size(x, 1) == gate_up.k, "gated_mlp: x does not have as many columns as gate_up");
  require(gate_up.n == 2 * down.k, "gated_mlp: gate_up does not have twice the columns of down");
  require(size(y, 0) == size(x, 0) && size(y, 1) == down.n,
          "gated_mlp: y does not have shape (T, D)");
  const Activation act = activation_of(activation);
  const float* added = bias_of(gate_up_bias, gate_up.n);
  const float* added_down = bias_of(down_bias, down.n);
  Release release;
  gated_mlp(x.data(), size(x, 0), gate_up, added, down, added_down, act, y.data(),
            add);
}

void at_exit() {
  Release::end_all();
  stop_threads();
}

void py_set_threads(int n) {
  require(n >= 1 && n <= 1024, "threads must be from 1 to 1024");
  Release release;
  set_threads(n);
}

double py_read_bandwidth(int64_t bytes, int n_threads, double seconds) {
  require(bytes > 0 && n_threads >= 1 && n_threads <= 1024 && seconds >= 0 && seconds <= 60,
          "read_bandwidth: bytes, threads (1 to 1024) and seconds (0 to 60) must be positive");
  Release release;
  return read_bandwidth(bytes, n_threads, seconds);
}

}  // namespace
}  // namespace gangline

NB_MODULE(_kernels, m) {
  using namespace gangline;
#if defined(__GLIBC__)
  // Results of operations are some megabytes that live for microseconds: from the heap, not from
  // pages that the system clears anew each time (a tenth of the time of a prefill).
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
#endif
  m.def("paths", &available_paths);
  m.def("path", [] { return std::string(kernels().name); });
  m.def("use_path", &use_path, "name"_a);
  m.def("set_threads", &py_set_threads, "n"_a);
  m.def("threads", &threads);
  m.def("read_bandwidth", &py_read_bandwidth, "bytes"_a, "threads"_a, "seconds"_a);
  bind_weights(m);
  bind_attention(m);
  bind_experts(m);
  m.def("linear", &py_linear, array("x"), "w"_a, array("bias").none(), array("y"), "add"_a);
  m.def("linear_heads", &py_linear_heads, array("x"), "w"_a, array("y"));
  m.def("embed", &py_embed, "table"_a, array("ids"), "scale"_a, array("y"));
  m.def("rms_norm", &py_norm<Norm::rms>, array("x"), array("w"), "eps"_a, array("y"));
  m.def("layer_norm", &py_norm<Norm::layer>, array("x"), array("w"), "eps"_a, array("y"));
  m.def("add", &py_add, array("residual"), array("x"), "scale"_a);
  m.def("sigmoid_gate", &py_sigmoid_gate, array("x"), array("gate"));
  m.def("soft_cap", &py_soft_cap, array("x"), "cap"_a);
  m.def("gated_mlp", &py_gated_mlp, array("x"), "gate_up"_a, "down"_a, "activation"_a, array("y"),
        "add"_a, array("gate_up_bias").none(), array("down_bias").none());

  // A daemon thread keeps its objects when the interpreter ends; that is no leak to report.
  nb::set_leak_warnings(false);
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(&at_exit));
}
