#include <algorithm>
#include <vector>

#include "dispatch.h"
#include "experts.h"
#include "pool.h"

namespace gangline {
namespace {

// The best of n things that are not taken yet, the lowest of equals; at least one is not taken.
int64_t best_of(const float* values, const uint8_t* taken, int64_t n) {
  int64_t best = -1;
  for (int64_t i = 0; i < n; ++i)
    if (!taken[i] && (best < 0 || values[best] < values[i])) best = i;
  return best;
}

// The sum of the two largest values.
float two_best(const float* values, int64_t n) {
  float first = values[0], second = n > 1 ? values[1] : 0.0f;
  if (n > 1 && first < second) std::swap(first, second);
  for (int64_t i = 2; i < n; ++i) {
    if (first < values[i]) {
      second = first;
      first = values[i];
    } else if (second < values[i]) {
      second = values[i];
    }
  }
  return first + second;
}

// What one thread needs to choose the experts of a row.
class Chooser {
 public:
  explicit Chooser(const RoutingRules& rules)
      : rules_(rules),
        values_(static_cast<size_t>(rules.n_experts)),
        groups_(static_cast<size_t>(rules.n_groups)),
        taken_(static_cast<size_t>(rules.n_experts)),
        groups_taken_(static_cast<size_t>(rules.n_groups)) {}

  // From the router's results (n_experts), which are overwritten.
  void choose(float* scores, const float* correction, int32_t* experts, float* weights) {
    const Kernels& run = kernels();
    const int64_t n = rules_.n_experts, n_active = rules_.n_active;
    if (rules_.scoring == Scoring::softmax) run.softmax(scores, n);
    if (rules_.scoring == Scoring::sigmoid) run.sigmoid(scores, n);
    for (int64_t e = 0; e < n; ++e)
      values_[static_cast<size_t>(e)] = correction ? scores[e] + correction[e] : scores[e];
    take_inactive_groups();
    for (int64_t j = 0; j < n_active; ++j) {
      const int64_t best = best_of(values_.data(), taken_.data(), n);
      taken_[static_cast<size_t>(best)] = 1;
      experts[j] = static_cast<int32_t>(best);
      weights[j] = scores[best];
    }
    if (rules_.scoring == Scoring::softmax_chosen) run.softmax(weights, n_active);
    float sum = 1e-20f;  // all weights may be zero
    for (int64_t j = 0; j < n_active; ++j) sum += weights[j];
    for (int64_t j = 0; j < n_active; ++j) {
      if (rules_.renormalize) weights[j] /= sum;
      weights[j] *= rules_.scale;
    }
  }

 private:
  // Mark the experts of groups that cannot be chosen from.
  void take_inactive_groups() {
    const bool all = rules_.n_active_groups == rules_.n_groups;
    std::fill(taken_.begin(), taken_.end(), static_cast<uint8_t>(!all));
    if (all) return;
    const int64_t size = rules_.n_experts / rules_.n_groups;
    for (int64_t g = 0; g < rules_.n_groups; ++g)
      groups_[static_cast<size_t>(g)] = two_best(values_.data() + g * size, size);
    std::fill(groups_taken_.begin(), groups_taken_.end(), uint8_t{0});
    for (int64_t j = 0; j < rules_.n_active_groups; ++j) {
      const int64_t best = best_of(groups_.data(), groups_taken_.data(), rules_.n_groups);
      groups_taken_[static_cast<size_t>(best)] = 1;
      std::fill_n(taken_.begin() + best * size, size, uint8_t{0});
    }
  }

  const RoutingRules& rules_;
  std::vector<float> values_, groups_;
  std::vector<uint8_t> taken_, groups_taken_;
};

}  // namespace

void route(const float* x, int64_t t, const Weight& router, const RoutingRules& rules,
           const float* bias, const float* correction, int32_t* experts, float* weights) {
  const int64_t n = rules.n_experts, n_active = rules.n_active;
  std::vector<float> scores(static_cast<size_t>(t * n));
  linear(x, t, router, bias, scores.data(), false);
  const double ns = static_cast<double>(t * n) * static_cast<double>(2 + n_active);
  parallel_for(t, ns, [&](int64_t first, int64_t last) {
    Chooser chooser(rules);
    for (int64_t row = first; row < last; ++row)
      chooser.choose(scores.data() + row * n, correction, experts + row * n_active,
                     weights + row * n_active);
  });
}

}  // namespace gangline
