// Which of the compiled instruction sets runs.
#pragma once

#include <vector>

#include "cpu/kernels.h"

namespace mimic {

// The builds in this library that this machine can run, slowest first.
std::vector<const Isa*> runnable_isas();

// All builds in this library, slowest first.
std::vector<const Isa*> compiled_isas();

}  // namespace mimic
