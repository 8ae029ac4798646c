// Weights, embeddings and experts as Python holds them.
#include "binding.h"

namespace gangline {
namespace {

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
  require((bits >= 2 && bits <= 6) || bits == 8, "only 2 to 6 and 8 bits per weight can be run");
  require(group_size == 16 || group_size == 32 || group_size == 64 || group_size == 128,
          "only groups of 16, 32, 64 and 128 can be run");
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

}  // namespace

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

void HeldWeight::add_dense(Bytes data, const std::string& dtype, int64_t rows, int64_t columns) {
  Part part;
  part.dense = dense_matrix(data, dtype, rows, columns);
  append(part);
  held_.push_back(data);
}

void HeldWeight::add_quantized(Bytes data, Bytes scales, Bytes offsets, const std::string& dtype,
                               int64_t rows, int64_t columns, int bits, int group_size) {
  const Matrix source =
      quantized_matrix(data, scales, offsets, dtype, rows, columns, bits, group_size);
  Part part;
  {
    Release release;
    part.packed = pack(source, part.memory);
  }
  append(part);
}

HeldExperts::HeldExperts(int64_t n_experts) {
  require(n_experts > 0 && n_experts <= 1 << 16, "experts must be from 1 to 65536");
  experts_.resize(static_cast<size_t>(n_experts));
}

HeldWeight& HeldExperts::at(int64_t expert) {
  require(expert >= 0 && expert < n_experts(), "no such expert");
  return experts_[static_cast<size_t>(expert)];
}

void HeldExperts::add_dense(int64_t expert, Bytes data, const std::string& dtype, int64_t rows,
                            int64_t columns) {
  at(expert).add_dense(data, dtype, rows, columns);
}

void HeldExperts::add_quantized(int64_t expert, Bytes data, Bytes scales, Bytes offsets,
                                const std::string& dtype, int64_t rows, int64_t columns, int bits,
                                int group_size) {
  at(expert).add_quantized(data, scales, offsets, dtype, rows, columns, bits, group_size);
}

void HeldExperts::finish() {
  const HeldWeight& first = experts_.front();
  for (const HeldWeight& expert : experts_)
    require(!expert.parts.empty() && expert.n == first.n && expert.k == first.k,
            "experts have different shapes");
  weights.assign(experts_.begin(), experts_.end());
  n = first.n;
  k = first.k;
}

HeldTable::HeldTable(Bytes data, const std::string& dtype, int64_t rows, int64_t columns)
    : matrix_(dense_matrix(data, dtype, rows, columns)), held_{data} {}

HeldTable::HeldTable(Bytes data, Bytes scales, Bytes offsets, const std::string& dtype,
                     int64_t rows, int64_t columns, int bits, int group_size)
    : matrix_(quantized_matrix(data, scales, offsets, dtype, rows, columns, bits, group_size)),
      held_{data, scales, offsets} {}

HeldTable::HeldTable(const HeldWeight& weight) {
  require(weight.parts.size() == 1 && weight.parts[0].is_packed(),
          "a table of a weight needs one quantized matrix");
  part_ = weight.parts[0];
}

HeldHeads::HeldHeads(Bytes data, const std::string& dtype, int64_t rows, int64_t columns,
                     int64_t n_heads)
    : matrix(dense_matrix(data, dtype, rows, columns)), n_heads(n_heads), held(data) {
  require(n_heads > 0 && rows % n_heads == 0, "rows are not a multiple of the heads");
}

void bind_weights(nb::module_& m) {
  nb::class_<HeldWeight>(m, "Weight", nb::is_weak_referenceable())
      .def(nb::init<>())
      .def("add_dense", &HeldWeight::add_dense, array("data"), "dtype"_a, "rows"_a, "columns"_a)
      .def("add_quantized", &HeldWeight::add_quantized, array("data"), array("scales"),
           array("offsets"), "dtype"_a, "rows"_a, "columns"_a, "bits"_a, "group_size"_a)
      .def_ro("n", &HeldWeight::n)
      .def_ro("k", &HeldWeight::k);
  nb::class_<HeldExperts>(m, "Experts")
      .def(nb::init<int64_t>(), "n_experts"_a)
      .def("add_dense", &HeldExperts::add_dense, "expert"_a, array("data"), "dtype"_a, "rows"_a,
           "columns"_a)
      .def("add_quantized", &HeldExperts::add_quantized, "expert"_a, array("data"),
           array("scales"), array("offsets"), "dtype"_a, "rows"_a, "columns"_a, "bits"_a,
           "group_size"_a)
      .def("finish", &HeldExperts::finish)
      .def_ro("n", &HeldExperts::n);
  nb::class_<HeldTable>(m, "Table")
      .def(nb::init<Bytes, const std::string&, int64_t, int64_t>(), "data"_a, "dtype"_a, "rows"_a,
           "columns"_a)
      .def(nb::init<Bytes, Bytes, Bytes, const std::string&, int64_t, int64_t, int, int>(),
           "data"_a, "scales"_a, "offsets"_a, "dtype"_a, "rows"_a, "columns"_a, "bits"_a,
           "group_size"_a)
      .def(nb::init<const HeldWeight&>(), "weight"_a)
      .def_prop_ro("k", &HeldTable::k);
  nb::class_<HeldHeads>(m, "Heads")
      .def(nb::init<Bytes, const std::string&, int64_t, int64_t, int64_t>(), "data"_a, "dtype"_a,
           "rows"_a, "columns"_a, "n_heads"_a)
      .def_prop_ro("n", [](const HeldHeads& heads) { return heads.matrix.n; });
}

}  // namespace gangline
