// What the parts of the Python module share: arguments, checks, and the objects that Python holds.
#pragma once

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

#include "experts.h"
#include "operations.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace gangline {

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

inline void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

template <class A>
int64_t size(const A& array, size_t axis) {
  return static_cast<int64_t>(array.shape(axis));
}

inline const float* bias_of(const std::optional<Vector>& bias, int64_t n) {
  require(!bias || size(*bias, 0) == n, "bias does not have one number per row of the weight");
  return bias ? bias->data() : nullptr;
}

// An argument that is never converted: results must not go into a copy.
inline auto array(const char* name) { return nb::arg(name).noconvert(); }

Dtype dtype_of(const std::string& name);
Activation activation_of(const std::string& name);

// A weight and the memory that its dense parts point into; quantized parts are repacked.
class HeldWeight : public Weight {
 public:
  void add_dense(Bytes data, const std::string& dtype, int64_t rows, int64_t columns);
  void add_quantized(Bytes data, Bytes scales, Bytes offsets, const std::string& dtype,
                     int64_t rows, int64_t columns, int bits, int group_size);

 private:
  std::vector<Bytes> held_;
};

// A weight for each expert.
class HeldExperts {
 public:
  explicit HeldExperts(int64_t n_experts);
  void add_dense(int64_t expert, Bytes data, const std::string& dtype, int64_t rows,
                 int64_t columns);
  void add_quantized(int64_t expert, Bytes data, Bytes scales, Bytes offsets,
                     const std::string& dtype, int64_t rows, int64_t columns, int bits,
                     int group_size);
  // Check that all experts have parts and one shape.
  void finish();

  int64_t n_experts() const { return static_cast<int64_t>(experts_.size()); }

  std::vector<Weight> weights;  // once finished
  int64_t n = 0, k = 0;

 private:
  HeldWeight& at(int64_t expert);

  std::vector<HeldWeight> experts_;
};

// An embedding: read row by row where it lies, or in a packed weight of the same matrix.
class HeldTable {
 public:
  HeldTable(Bytes data, const std::string& dtype, int64_t rows, int64_t columns);
  HeldTable(Bytes data, Bytes scales, Bytes offsets, const std::string& dtype, int64_t rows,
            int64_t columns, int bits, int group_size);
  explicit HeldTable(const HeldWeight& weight);

  int64_t n() const { return part_.is_packed() ? part_.packed.n : matrix_.n; }
  int64_t k() const { return part_.is_packed() ? part_.packed.k : matrix_.k; }
  void embed(const int32_t* ids, int64_t t, float scale, float* y) const {
    if (part_.is_packed()) gangline::embed(part_.packed, ids, t, scale, y);
    else gangline::embed(matrix_, ids, t, scale, y);
  }

 private:
  Matrix matrix_{};
  std::vector<Bytes> held_;
  Part part_;
};

// A dense matrix of one head after the other.
struct HeldHeads {
  HeldHeads(Bytes data, const std::string& dtype, int64_t rows, int64_t columns, int64_t n_heads);

  const Matrix matrix;
  const int64_t n_heads;
  const Bytes held;
};

// The parts of the module.
void bind_weights(nb::module_& m);
void bind_attention(nb::module_& m);
void bind_experts(nb::module_& m);

}  // namespace gangline
