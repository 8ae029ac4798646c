// Mixtures of experts: which experts a row takes, and their gated MLPs.
#pragma once

#include <cstdint>
#include <vector>

#include "operations.h"

namespace gangline {

enum class Scoring : uint8_t { softmax, softmax_chosen, sigmoid };

// How a row chooses; src/gangline/engine/operations.py (Routing) says what each of these means.
struct RoutingRules {
  int64_t n_experts, n_active;
  Scoring scoring;
  bool renormalize;
  float scale;
  int64_t n_groups, n_active_groups;
};

// experts (t, n_active) and their weights, best first, from x (t, k) and the router (n_experts, k);
// bias and correction (n_experts) or null. Of equal scores the lower expert wins; whatever the
// numbers are, a row's experts differ and are below n_experts.
void route(const float* x, int64_t t, const Weight& router, const RoutingRules& rules,
           const float* bias, const float* correction, int32_t* experts, float* weights);

// y (t, n) += sum over a row's experts, in order, of weight * down(activation(gate(x)) * up(x)), one
// fused multiply-add each. gate_up and down are one weight per expert; biases (E * 2 F) and (E * n)
// or null; experts and weights (t, n_active).
void mixture(const float* x, int64_t t, const int32_t* experts, const float* weights,
             int64_t n_active, const std::vector<Weight>& gate_up, const float* gate_up_bias,
             const std::vector<Weight>& down, const float* down_bias, Activation activation,
             float* y);

}  // namespace gangline
