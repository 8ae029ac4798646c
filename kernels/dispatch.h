// Which path's kernels run on this machine.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace gangline {

// Names of the paths that this build has and this processor can run, the best one last.
std::vector<std::string> available_paths();

// The kernels in use. First called, it takes the best path, or the one that the environment
// variable GANGLINE_CPU names; throws std::invalid_argument where that one cannot run.
const Kernels& kernels();

// Use path `name` from now on. Not to be called while kernels run.
void use_path(const std::string& name);

}  // namespace gangline
