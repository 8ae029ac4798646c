// The part of the Python module that knows lanes and positions: batches, caches, heads, states.
#include "binding.h"
#include "delta.h"

namespace gangline {
namespace {

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

void py_delta_net(Rows mixed, Rows beta, Rows decay, DeltaState& state, const Batch& batch,
                  Vector convolution, Vector decay_log, Vector decay_bias, RowsOut out) {
  const DeltaSizes& sizes = state.sizes;
  const int64_t t = batch.rows(), n_heads = sizes.n_value_heads;
  require(batch.lanes <= state.lanes, "delta_net: the batch was made for more lanes");
  require(size(mixed, 0) == t && size(mixed, 1) == sizes.width(),
          "delta_net: mixed does not have shape (T, width)");
  require(size(beta, 0) == t && size(beta, 1) == n_heads && size(decay, 0) == t &&
              size(decay, 1) == n_heads,
          "delta_net: beta and decay do not have shape (T, value heads)");
  require(size(convolution, 0) == sizes.width() * sizes.taps && size(decay_log, 0) == n_heads &&
              size(decay_bias, 0) == n_heads,
          "delta_net: convolution or decay weights do not fit the sizes");
  require(size(out, 0) == t && size(out, 1) == sizes.values_width(),
          "delta_net: out does not have shape (T, value heads * value_dim)");
  const DeltaInputs in = {mixed.data(),       beta.data(),      decay.data(),
                          convolution.data(), decay_log.data(), decay_bias.data()};
  Release release;
  delta_net(in, state, batch, out.data());
}

void make_delta_state(DeltaState* state, int64_t lanes, int64_t n_key_heads, int64_t n_value_heads,
                      int64_t key_dim, int64_t value_dim, int64_t taps) {
  const DeltaSizes sizes = {n_key_heads, n_value_heads, key_dim, value_dim, taps};
  new (state) DeltaState(lanes, sizes);
}

}  // namespace

void bind_attention(nb::module_& m) {
  nb::class_<Cache>(m, "Cache")
      .def("__init__", &make_cache, "lanes"_a, "context"_a, "n_kv_heads"_a, "head_dim"_a,
           "value_dim"_a, "shared_values"_a, "dtype"_a);
  nb::class_<DeltaState>(m, "DeltaState")
      .def("__init__", &make_delta_state, "lanes"_a, "n_key_heads"_a, "n_value_heads"_a,
           "key_dim"_a, "value_dim"_a, "taps"_a);
  nb::class_<Batch>(m, "Batch").def_prop_ro("rows", &Batch::rows);
  m.def("batch", &make_batch, array("slots"), array("starts"), array("counts"), "lanes"_a,
        "context"_a);
  m.def("head_norm", &py_head_norm, array("qkv"), array("q"), array("k"), "n_heads"_a,
        "n_kv_heads"_a, "head_dim"_a, "eps"_a);
  m.def("gated_norm", &py_gated_norm, array("x"), array("gate"), array("w"), "eps"_a);
  m.def("rope", &py_rope, array("qkv"), array("table"), "batch"_a, "n_heads"_a, "n_kv_heads"_a,
        "head_dim"_a);
  m.def("attend", &py_attend, array("qkv"), "cache"_a, "batch"_a, "n_heads"_a, "scale"_a,
        "window"_a, "soft_cap"_a, array("sinks").none(), array("out"));
  m.def("delta_net", &py_delta_net, array("mixed"), array("beta"), array("decay"), "state"_a,
        "batch"_a, array("convolution"), array("decay_log"), array("decay_bias"), array("out"));
}

}  // namespace gangline
