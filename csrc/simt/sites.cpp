#include "simt/sites.h"

#include <map>
#include <tuple>
#include <vector>

namespace simt {
namespace {

struct Site {
  std::string name;
  int variants;
  int64_t visits;
};

std::vector<Site> sites;
std::map<std::tuple<const char*, const char*, unsigned, unsigned>, int> index_of;
int mutated_site = -1, mutated_variant = 0;

}  // namespace

std::string describe(const Location& where) {
  const std::string file = where.file_name();
  const size_t slash = file.rfind('/');
  return file.substr(slash == std::string::npos ? 0 : slash + 1) + ":" + std::to_string(where.line()) + ":" +
         std::to_string(where.column());
}

int visit(const char* what, const Location& where, int variants) {
  const auto [found, fresh] =
      index_of.try_emplace({what, where.file_name(), where.line(), where.column()}, int(sites.size()));
  if (fresh) sites.push_back({describe(where) + " " + what, variants, 0});
  ++sites[size_t(found->second)].visits;
  return found->second == mutated_site ? mutated_variant : kUnchanged;
}

}  // namespace simt

// For the tests: sites appear in the order of their first visit.
extern "C" {
int simt_sites() { return int(simt::sites.size()); }
const char* simt_site_name(int site) { return simt::sites.at(size_t(site)).name.c_str(); }
int simt_site_variants(int site) { return simt::sites.at(size_t(site)).variants; }
int64_t simt_site_visits(int site) { return simt::sites.at(size_t(site)).visits; }
void simt_forget_visits() {
  for (simt::Site& site : simt::sites) site.visits = 0;
}
// Switches one mutant on; site -1 switches it off.
void simt_mutate(int site, int variant) {
  simt::mutated_site = site;
  simt::mutated_variant = variant;
}
}
