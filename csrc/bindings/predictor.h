// _core.Predictor: a net's weights, checked once, so that a call costs next to nothing.
#pragma once

#include <pybind11/pybind11.h>

#include "../cpu/dispatch.h"

namespace mimic {

// `isa` is the one in use when a call comes.
void bind_predictor(pybind11::module_& m, const Isa* const& isa);

}  // namespace mimic
