// The part of the Python module that routes rows to experts.
#include "binding.h"

namespace gangline {
namespace {

using IntsOut = Array<int32_t, 2>;
using IntRows = Array<const int32_t, 2>;

Scoring scoring_of(const std::string& name) {
  if (name == "softmax") return Scoring::softmax;
  if (name == "softmax_chosen") return Scoring::softmax_chosen;
  if (name == "sigmoid") return Scoring::sigmoid;
  throw std::invalid_argument("scoring `" + name + "` is not known");
}

void py_route(Rows x, const HeldWeight& router, const std::string& scoring, bool renormalize,
              float scale, int64_t n_groups, int64_t n_active_groups, std::optional<Vector> bias,
              std::optional<Vector> correction, IntsOut experts, RowsOut weights) {
  const int64_t n_active = size(experts, 1);
  const RoutingRules rules = {router.n, n_active, scoring_of(scoring), renormalize,
                              scale,    n_groups, n_active_groups};
  require(size(x, 1) == router.k, "route: x does not have as many columns as the router");
  require(n_groups >= 1 && rules.n_experts % n_groups == 0 && n_active_groups >= 1 &&
              n_active_groups <= n_groups,
          "route: the experts cannot be divided into these groups");
  require(n_active >= 1 && n_active <= rules.n_experts / n_groups * n_active_groups,
          "route: there are fewer experts to choose from than shall be active");
  require(size(experts, 0) == size(x, 0) && size(weights, 0) == size(x, 0) &&
              size(weights, 1) == n_active,
          "route: experts and weights do not have shape (T, n_active)");
  const float* added = bias_of(bias, router.n);
  const float* corrected = bias_of(correction, router.n);
  Release release;
  route(x.data(), size(x, 0), router, rules, added, corrected, experts.data(), weights.data());
}

void py_mixture(Rows x, IntRows experts, Rows weights, const HeldExperts& gate_up,
                const HeldExperts& down, const std::string& activation, RowsOut y,
                std::optional<Vector> gate_up_bias, std::optional<Vector> down_bias) {
  const int64_t n_experts = gate_up.n_experts();
  require(gate_up.n > 0 && down.n > 0, "mixture: the experts are not finished");
  require(down.n_experts() == n_experts,
          "mixture: gate_up and down have different numbers of experts");
  require(size(x, 1) == gate_up.k, "mixture: x does not have as many columns as gate_up");
  require(gate_up.n == 2 * down.k, "mixture: gate_up does not have twice the columns of down");
  require(size(y, 0) == size(x, 0) && size(y, 1) == down.n,
          "mixture: the residual does not have shape (T, D)");
  require(size(experts, 0) == size(x, 0) && size(weights, 0) == size(x, 0) &&
              size(weights, 1) == size(experts, 1) && size(experts, 1) > 0,
          "mixture: experts and weights are not (T, n_active)");
  for (int64_t i = 0; i < size(experts, 0) * size(experts, 1); ++i)
    require(experts.data()[i] >= 0 && experts.data()[i] < n_experts, "mixture: no such expert");
  const Activation act = activation_of(activation);
  const float* added = bias_of(gate_up_bias, n_experts * gate_up.n);
  const float* added_down = bias_of(down_bias, n_experts * down.n);
  Release release;
  mixture(x.data(), size(x, 0), experts.data(), weights.data(), size(experts, 1), gate_up.weights,
          added, down.weights, added_down, act, y.data());
}

}  // namespace

void bind_experts(nb::module_& m) {
  m.def("route", &py_route, array("x"), "router"_a, "scoring"_a, "renormalize"_a, "scale"_a,
        "n_groups"_a, "n_active_groups"_a, array("bias").none(), array("correction").none(),
        array("experts"), array("weights"));
  m.def("mixture", &py_mixture, array("x"), array("experts"), array("weights"), "gate_up"_a,
        "down"_a, "activation"_a, array("y"), array("gate_up_bias").none(),
        array("down_bias").none());
}

}  // namespace gangline
