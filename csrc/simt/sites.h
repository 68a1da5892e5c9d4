// Call sites that a run has visited, and the one whose effect is switched off (a mutant).
#pragma once

#include <stdint.h>

#include <source_location>
#include <string>

namespace simt {

using Location = std::source_location;

inline bool same(const Location& a, const Location& b) {
  return a.line() == b.line() && a.column() == b.column() && a.file_name() == b.file_name();
}

std::string describe(const Location& where);

constexpr int kUnchanged = -1;

// Counts a visit of the site; returns which of its `variants` mutants is switched on, or kUnchanged.
// `what` is a literal: its address takes part in the site's identity.
int visit(const char* what, const Location& where, int variants = 1);

inline bool removed(const char* what, const Location& where) { return visit(what, where) != kUnchanged; }

}  // namespace simt
