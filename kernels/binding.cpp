// The Python module gangline._kernels: checks shapes, releases the GIL, calls the operations.
//
// A mistake of the caller raises ValueError; after the checks here no batch and no tensor can make
// a kernel touch memory that is not its own.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

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

// An embedding: read row by row where it lies, or in a packed weight of the same matrix.
class HeldTable {
 public:
  HeldTable(Bytes data, const std::string& dtype, int64_t rows, int64_t columns)
      : matrix_(dense_matrix(data, dtype, rows, columns)), held_{data} {}
  HeldTable(Bytes data, Bytes scales, Bytes offsets, const std::string& dtype, int64_t rows,
            int64_t columns, int bits, int group_size)
      : matrix_(quantized_matrix(data, scales, offsets, dtype, rows, columns, bits, group_size)),
        held_{data, scales, offsets} {}
  explicit HeldTable(const HeldWeight& weight) {
    require(weight.parts.size() == 1 && weight.parts[0].is_packed(),
            "a table of a weight needs one quantized matrix");
    part_ = weight.parts[0];
  }

  int64_t n() const { return part_.is_packed() ? part_.packed.n : matrix_.n; }
  int64_t k() const { return part_.is_packed() ? part_.packed.k : matrix_.k; }
  void embed(const int32_t* ids, int64_t t, float* y) const {
    if (part_.is_packed()) gangline::embed(part_.packed, ids, t, y);
    else gangline::embed(matrix_, ids, t, y);
  }

 private:
  Matrix matrix_{};
  std::vector<Bytes> held_;
  Part part_;
};

void make_cache(Cache* cache, int64_t lanes, int64_t context, int64_t n_kv_heads, int64_t head_dim,
                const std::string& dtype) {
  require(dtype == "f16" || dtype == "f32", "a cache holds f16 or f32");
  new (cache) Cache(lanes, context, n_kv_heads, head_dim, dtype_of(dtype));
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

void py_embed(const HeldTable& table, Ints ids, RowsOut y) {
  require(size(y, 0) == size(ids, 0) && size(y, 1) == table.k(),
          "embed: y does not have shape (T, D)");
  for (int64_t i = 0; i < size(ids, 0); ++i)
    require(ids.data()[i] >= 0 && ids.data()[i] < table.n(), "embed: an id is outside the table");
  Release release;
  table.embed(ids.data(), size(ids, 0), y.data());
}

void py_rms_norm(Rows x, Vector w, float eps, RowsOut y) {
  require(size(w, 0) == size(x, 1), "rms_norm: w does not have one number per column of x");
  require(size(y, 0) == size(x, 0) && size(y, 1) == size(x, 1),
          "rms_norm: y does not have the shape of x");
  Release release;
  rms_norm(x.data(), size(x, 0), size(x, 1), w.data(), eps, y.data());
}

void py_rope(RowsOut qkv, Array<const float, 3> table, const Batch& batch, int64_t n_heads,
             int64_t n_kv_heads) {
  const int64_t half = size(table, 2);
  require(n_heads > 0 && n_kv_heads > 0 && size(table, 1) == 2, "rope: heads or table are wrong");
  require(size(table, 0) >= batch.context, "rope: the table has too few positions");
  require(size(qkv, 0) == batch.rows() && size(qkv, 1) == (n_heads + 2 * n_kv_heads) * 2 * half,
          "rope: qkv does not fit batch and heads");
  Release release;
  rope(qkv.data(), table.data(), half, batch, n_heads, n_kv_heads);
}

void py_attend(Rows qkv, const Cache& cache, const Batch& batch, int64_t n_heads, float scale,
               RowsOut out) {
  require(batch.lanes <= cache.lanes && batch.context <= cache.context,
          "attend: the batch was made for a larger cache");
  require(n_heads > 0 && n_heads % cache.n_kv_heads == 0,
          "attend: n_heads is not a multiple of the cache's heads");
  require(size(qkv, 0) == batch.rows() &&
              size(qkv, 1) == (n_heads + 2 * cache.n_kv_heads) * cache.head_dim,
          "attend: qkv does not fit batch and heads");
  require(size(out, 0) == batch.rows() && size(out, 1) == n_heads * cache.head_dim,
          "attend: out does not have shape (T, H Dh)");
  Release release;
  attend(qkv.data(), cache, batch, n_heads, scale, out.data());
}

void py_gated_mlp(Rows x, const HeldWeight& gate_up, const HeldWeight& down,
                  const std::string& activation, RowsOut residual,
                  std::optional<Vector> gate_up_bias, std::optional<Vector> down_bias) {
  require(size(x, 1) == gate_up.k, "gated_mlp: x does not have as many columns as gate_up");
  require(gate_up.n == 2 * down.k, "gated_mlp: gate_up does not have twice the columns of down");
  require(size(residual, 0) == size(x, 0) && size(residual, 1) == down.n,
          "gated_mlp: residual does not have shape (T, D)");
  const Activation act = activation_of(activation);
  const float* added = bias_of(gate_up_bias, gate_up.n);
  const float* added_down = bias_of(down_bias, down.n);
  Release release;
  gated_mlp(x.data(), size(x, 0), gate_up, added, down, added_down, act, residual.data());
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

  nb::class_<HeldWeight>(m, "Weight", nb::is_weak_referenceable())
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
      .def(nb::init<const HeldWeight&>(), "weight"_a)
      .def_prop_ro("k", &HeldTable::k);
  nb::class_<Cache>(m, "Cache")
      .def("__init__", &make_cache, "lanes"_a, "context"_a, "n_kv_heads"_a, "head_dim"_a,
           "dtype"_a)
      .def_ro("head_dim", &Cache::head_dim)
      .def_ro("n_kv_heads", &Cache::n_kv_heads);
  nb::class_<Batch>(m, "Batch").def_prop_ro("rows", &Batch::rows);
  m.def("batch", &make_batch, array("slots"), array("starts"), array("counts"), "lanes"_a,
        "context"_a);

  m.def("linear", &py_linear, array("x"), "w"_a, array("bias").none(), array("y"), "add"_a);
  m.def("embed", &py_embed, "table"_a, array("ids"), array("y"));
  m.def("rms_norm", &py_rms_norm, array("x"), array("w"), "eps"_a, array("y"));
  m.def("rope", &py_rope, array("qkv"), array("table"), "batch"_a, "n_heads"_a, "n_kv_heads"_a);
  m.def("attend", &py_attend, array("qkv"), "cache"_a, "batch"_a, "n_heads"_a, "scale"_a,
        array("out"));
  m.def("gated_mlp", &py_gated_mlp, array("x"), "gate_up"_a, "down"_a, "activation"_a,
        array("residual"), array("gate_up_bias").none(), array("down_bias").none());

  // A daemon thread keeps its objects when the interpreter ends; that is no leak to report.
  nb::set_leak_warnings(false);
  nb::module_::import_("atexit").attr("register")(nb::cpp_function(&at_exit));
}
