// The Python module gangline._kernels: checks shapes, releases the GIL, calls the operations.
//
// A mistake of the caller raises ValueError; after the checks here no batch and no tensor can make
// a kernel touch memory that is not its own.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <atomic>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "cache.h"
#include "dispatch.h"
#include "operations.h"
#include "pool.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace gangline {
namespace {

template <class T, size_t N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
using Bytes = Array<const uint8_t, 1>;
using Ints = Array<const int32_t, 1>;
using Vector = Array<const float, 1>;
using Rows = Array<const float, 2>;
using RowsOut = Array<float, 2>;

// Lets other Python threads run while a kernel does.
//
// A thread that comes back for the GIL after the interpreter began to end is killed by it (Python
// up to 3.13), which C++ answers with std::terminate. So at exit all threads come back first, and
// from then on they keep the GIL.
class Release {
 public:
  Release() {
    if (!ending) {
      ++n_released;
      state_ = PyEval_SaveThread();
    }
  }
  ~Release() {
    if (state_) {
      PyEval_RestoreThread(state_);
      --n_released;
    }
  }
  Release(const Release&) = delete;
  Release& operator=(const Release&) = delete;

  static void end_all() {
    ending = true;
    PyThreadState* state = PyEval_SaveThread();
    while (n_released > 0) std::this_thread::yield();
    PyEval_RestoreThread(state);
  }

 private:
  inline static bool ending = false;  // read and written under the GIL
  inline static std::atomic<int> n_released = 0;
  PyThreadState* state_ = nullptr;
};

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

template <class A>
int64_t size(const A& array, size_t axis) {
  return static_cast<int64_t>(array.shape(axis));
}

const float* bias_of(const std::optional<Vector>& bias, int64_t n) {
  require(!bias || size(*bias, 0) == n, "bias does not have one number per row of the weight");
  return bias ? bias->data() : nullptr;
}

Dtype dtype_of(const std::string& name) {
  if (name == "f32") return Dtype::f32;
  if (name == "f16") return Dtype::f16;
  if (name == "bf16") return Dtype::bf16;
  throw std::invalid_argument("dtype `" + name + "`, expected f32, f16 or bf16");
}

Activation activation_of(const std::string& name) {
  if (name == "silu") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_tanh") return Activation::gelu_tanh;
  if (name == "relu2") return Activation::relu2;
  if (name == "swiglu_clamped") return Activation::swiglu_clamped;
  throw std::invalid_argument("activation `" + name + "` is not known");
}

const uint8_t* checked(const Bytes& bytes, int64_t expected) {
  require(size(bytes, 0) == expected, "the bytes of a matrix do not fit its shape");
  return bytes.data();
}

Matrix sized(const std::string& dtype, int64_t rows, int64_t columns) {
  const int64_t limit = (int64_t{1} << 31) - 1;
  require(rows > 0 && columns > 0 && rows <= limit && columns <= limit, "an empty matrix");
  Matrix matrix{};
  matrix.dtype = dtype_of(dtype);
  matrix.n = rows;
  matrix.k = columns;
  return matrix;
}

// Matrices as they lie in a checkpoint, pointing into the arrays that they are made from.
Matrix dense_matrix(const Bytes& data, const std::string& dtype, int64_t rows, int64_t columns) {
  Matrix matrix = sized(dtype, rows, columns);
  matrix.data = checked(data, rows * row_bytes(matrix));
  return matrix;
}

Matrix quantized_matrix(const Bytes& data, const Bytes& scales, const Bytes& offsets,
                        const std::string& dtype, int64_t rows, int64_t columns, int bits,
                        int group_size) {
  require(bits == 4 || bits == 8, "only 4 and 8 bits per weight can be run");
  require(group_size == 32 || group_size == 64 || group_size == 128,
          "only groups of 32, 64 and 128 can be run");
  require(columns % group_size == 0, "a row is not a whole number of groups");
  Matrix matrix = sized(dtype, rows, columns);
  matrix.bits = bits;
  matrix.group_size = group_size;
  const int64_t group_bytes = rows * (columns / group_size) * dtype_bytes(matrix.dtype);
  matrix.data = checked(data, rows * row_bytes(matrix));
  matrix.scales = checked(scales, group_bytes);
  matrix.offsets = checked(offsets, group_bytes);
  return matrix;
}

// A weight and the memory that its dense parts point into; quantized parts are repacked.
class HeldWeight : public Weight {
 public:
  void add_dense(Bytes data, const std::string& dtype, int64_t rows, int64_t columns) {
    Part part;
    part.dense = dense_matrix(data, dtype, rows, columns);
    append(part, columns);
    held_.push_back(data);
  }

  void add_quantized(Bytes data, Bytes scales, Bytes offsets, const std::string& dtype,
                     int64_t rows, int64_t columns, int bits, int group_size) {
    const Matrix source =
        quantized_matrix(data, scales, offsets, dtype, rows, columns, bits, group_size);
    Part part;
    {
      Release release;
      part.packed = pack(source, part.memory);
    }
    append(part, columns);
  }

 private:
  void append(const Part& part, int64_t columns) {
    require(parts.empty() || columns == k, "stacked matrices have different numbers of columns");
    parts.push_back(part);
    n += part.n();
    k = columns;
  }

  std::vector<Bytes> held_;
};

// An embedding: read row by row where it lies.
class HeldTable {
 public:
  HeldTable(Bytes data, const std::string& dtype, int64_t rows, int64_t columns)
      : matrix(dense_matrix(data, dtype, rows, columns)), held_{data} {}
  HeldTable(Bytes data, Bytes scales, Bytes offsets, const std::string& dtype, int64_t rows,
            int64_t columns, int bits, int group_size)
      : matrix(quantized_matrix(data, scales, offsets, dtype, rows, columns, bits, group_size)),
        held_{data, scales, offsets} {}

  const Matrix matrix;

 private:
  std::vector<Bytes> held_;
};

// A dense matrix of one head after the other.
class HeldHeads {
 public:
  HeldHeads(Bytes data, const std::string& dtype, int64_t rows, int64_t columns, int64_t n_heads)
      : matrix(dense_matrix(data, dtype, rows, columns)), n_heads(n_heads), held_(data) {
    require(n_heads > 0 && rows % n_heads == 0, "rows are not a multiple of the heads");
  }

  const Matrix matrix;
  const int64_t n_heads;

 private:
  Bytes held_;
};

void make_cache(Cache* cache, int64_t lanes, int64_t context, int64_t n_kv_heads, int64_t head_dim,
                int64_t value_dim, bool shared_values, const std::string& dtype) {
  require(dtype == "f16" || dtype == "f32", "a cache holds f16 or f32");
  new (cache) Cache(lanes, context, n_kv_heads, head_dim, value_dim, shared_values, dtype_of(dtype));
}

Batch make_batch(Ints slots, Ints starts, Ints counts, int64_t lanes, int64_t context) {
  require(slots.size() == starts.size() && slots.size() == counts.size(),
          "a batch with unequal numbers of slots, starts and counts");
  return Batch(slots.data(), starts.data(), counts.data(), size(slots, 0), lanes, context);
}

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
  require(size(y, 0) == size(ids, 0) && size(y, 1) == table.matrix.k,
          "embed: y does not have shape (T, D)");
  for (int64_t i = 0; i < size(ids, 0); ++i)
    require(ids.data()[i] >= 0 && ids.data()[i] < table.matrix.n,
            "embed: an id is outside the table");
  Release release;
  embed(table.matrix, ids.data(), size(ids, 0), scale, y.data());
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

// The layout of rows that have as many columns as these heads and a rest for values.
FusedRows fused_rows(const RowsOut& qkv, int64_t n_heads, int64_t n_kv_heads, int64_t head_dim) {
  const int64_t limit = int64_t{1} << 31;
  require(n_heads > 0 && n_kv_heads > 0 && head_dim > 0 && n_heads < limit && n_kv_heads < limit &&
              head_dim <= kMaxHeadDim && size(qkv, 1) >= (n_heads + n_kv_heads) * head_dim,
          "the rows are too short for their queries and keys");
  return {n_heads, n_kv_heads, head_dim, size(qkv, 1)};
}

HeadWeight head_weight(const Vector& w, int64_t n_heads, int64_t head_dim) {
  const bool each = size(w, 0) == head_dim;
  require(each || size(w, 0) == n_heads * head_dim,
          "head_norm: a weight is neither for one head nor for all of them");
  return {w.data(), each};
}

void py_head_norm(RowsOut qkv, Vector q, Vector k, int64_t n_heads, int64_t n_kv_heads,
                  int64_t head_dim, float eps) {
  const FusedRows rows = fused_rows(qkv, n_heads, n_kv_heads, head_dim);
  const HeadWeight queries = head_weight(q, n_heads, head_dim);
  const HeadWeight keys = head_weight(k, n_kv_heads, head_dim);
  Release release;
  head_norm(qkv.data(), size(qkv, 0), rows, queries, keys, eps);
}

void py_gated_norm(RowsOut x, Rows gate, Vector w, float eps) {
  const int64_t dim = size(w, 0);
  require(dim > 0 && size(x, 1) % dim == 0, "gated_norm: a row of x is not a number of heads");
  require(size(gate, 0) == size(x, 0) && size(gate, 1) == size(x, 1),
          "gated_norm: the gate does not have the shape of x");
  Release release;
  gated_norm(x.data(), gate.data(), size(x, 0), size(x, 1) / dim, dim, w.data(), eps);
}

void py_rope(RowsOut qkv, Array<const float, 3> table, const Batch& batch, int64_t n_heads,
             int64_t n_kv_heads, int64_t head_dim) {
  const FusedRows rows = fused_rows(qkv, n_heads, n_kv_heads, head_dim);
  const int64_t half = size(table, 2);
  require(size(table, 1) == 2 && 2 * half <= head_dim, "rope: the table does not fit the heads");
  require(size(table, 0) >= batch.context, "rope: the table has too few positions");
  require(size(qkv, 0) == batch.rows(), "rope: qkv does not fit the batch");
  Release release;
  rope(qkv.data(), rows, table.data(), half, batch);
}

void py_attend(Rows qkv, const Cache& cache, const Batch& batch, int64_t n_heads, float scale,
               int64_t window, float soft_cap, std::optional<Vector> sinks, RowsOut out) {
  require(batch.lanes <= cache.lanes && batch.context <= cache.context,
          "attend: the batch was made for a larger cache");
  require(n_heads > 0 && n_heads < (int64_t{1} << 31) && n_heads % cache.n_kv_heads == 0,
          "attend: n_heads is not a multiple of the cache's heads");
  const int64_t own_values = cache.shared ? 0 : cache.n_kv_heads * cache.value_dim;
  const int64_t width = (n_heads + cache.n_kv_heads) * cache.head_dim + own_values;
  require(size(qkv, 0) == batch.rows() && size(qkv, 1) == width,
          "attend: qkv does not fit batch and heads");
  require(size(out, 0) == batch.rows() && size(out, 1) == n_heads * cache.value_dim,
          "attend: out does not have shape (T, H Dv)");
  require(!sinks || size(*sinks, 0) == n_heads, "attend: sinks are not one per head");
  require(window >= 0, "attend: a window cannot be negative");
  const AttentionRules rules = {scale, soft_cap, window};
  const float* sink_scores = sinks ? sinks->data() : nullptr;
  Release release;
  attend(qkv.data(), {n_heads, cache.n_kv_heads, cache.head_dim, width}, cache, batch, rules,
         sink_scores, out.data());
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

// An argument that is never converted: results must not go into a copy.
auto array(const char* name) { return nb::arg(name).noconvert(); }

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
  m.def("paths", &available_paths);
  m.def("path", [] { return std::string(kernels().name); });
  m.def("use_path", &use_path, "name"_a);
  m.def("set_threads", &py_set_threads, "n"_a);
  m.def("threads", &threads);
  m.def("read_bandwidth", &py_read_bandwidth, "bytes"_a, "threads"_a, "seconds"_a);

  nb::class_<HeldWeight>(m, "Weight")
      .def(nb::init<>())
      .def("add_dense", &HeldWeight::add_dense, array("data"), "dtype"_a, "rows"_a, "columns"_a)
      .def("add_quantized", &HeldWeight::add_quantized, array("data"), array("scales"),
           array("offsets"), "dtype"_a, "rows"_a, "columns"_a, "bits"_a, "group_size"_a)
      .def_ro("n", &HeldWeight::n)
      .def_ro("k", &HeldWeight::k);
  nb::class_<HeldTable>(m, "Table")
      .def(nb::init<Bytes, const std::string&, int64_t, int64_t>(), "data"_a, "dtype"_a, "rows"_a,
           "columns"_a)
      .def(nb::init<Bytes, Bytes, Bytes, const std::string&, int64_t, int64_t, int, int>(),
           "data"_a, "scales"_a, "offsets"_a, "dtype"_a, "rows"_a, "columns"_a, "bits"_a,
           "group_size"_a)
      .def_prop_ro("k", [](const HeldTable& table) { return table.matrix.k; });
  nb::class_<HeldHeads>(m, "Heads")
      .def(nb::init<Bytes, const std::string&, int64_t, int64_t, int64_t>(), "data"_a, "dtype"_a,
           "rows"_a, "columns"_a, "n_heads"_a)
      .def_prop_ro("n", [](const HeldHeads& heads) { return heads.matrix.n; });
  nb::class_<Cache>(m, "Cache")
      .def("__init__", &make_cache, "lanes"_a, "context"_a, "n_kv_heads"_a, "head_dim"_a,
           "value_dim"_a, "shared_values"_a, "dtype"_a);
  nb::class_<Batch>(m, "Batch").def_prop_ro("rows", &Batch::rows);
  m.def("batch", &make_batch, array("slots"), array("starts"), array("counts"), "lanes"_a,
        "context"_a);

  m.def("linear", &py_linear, array("x"), "w"_a, array("bias").none(), array("y"), "add"_a);
  m.def("linear_heads", &py_linear_heads, array("x"), "w"_a, array("y"));
  m.def("embed", &py_embed, "table"_a, array("ids"), "scale"_a, array("y"));
  m.def("rms_norm", &py_norm<Norm::rms>, array("x"), array("w"), "eps"_a, array("y"));
  m.def("layer_norm", &py_norm<Norm::layer>, array("x"), array("w"), "eps"_a, array("y"));
  m.def("add", &py_add, array("residual"), array("x"), "scale"_a);
  m.def("sigmoid_gate", &py_sigmoid_gate, array("x"), array("gate"));
  m.def("soft_cap", &py_soft_cap, array("x"), "cap"_a);
  m.def("head_norm", &py_head_norm, array("qkv"), array("q"), array("k"), "n_heads"_a,
        "n_kv_heads"_a, "head_dim"_a, "eps"_a);
  m.def("gated_norm", &py_gated_norm, array("x"), array("gate"), array("w"), "eps"_a);
  m.def("rope", &py_rope, array("qkv"), array("table"), "batch"_a, "n_heads"_a, "n_kv_heads"_a,
        "head_dim"_a);
  m.def("attend", &py_attend, array("qkv"), "cache"_a, "batch"_a, "n_heads"_a, "scale"_a,
        "window"_a, "soft_cap"_a, array("sinks").none(), array("out"));
  m.def("gated_mlp", &py_gated_mlp, array("x"), "gate_up"_a, "down"_a, "activation"_a, array("y"),
        "add"_a, array("gate_up_bias").none(), array("down_bias").none());

  // A daemon thread keeps its objects when the interpreter ends; that is no leak to report.
  nb::set_leak_warnings(false);
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(&at_exit));
}
