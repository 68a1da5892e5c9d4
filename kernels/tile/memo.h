// Answers that cost the host more than a launch does and that never change: each thread keeps its newest.
#pragma once

#include <stdint.h>

#include <array>

namespace mimic {

// A table of the newest answers. `words` are those of a question.
template <class Answer, int words, unsigned places = 64>
class Memo {
 public:
  using Question = std::array<int64_t, words>;

  // The answer, made by `make(answer)` where the question is new. Returns what `make` returns, or a default of its
  // type. An answer that comes with anything else is not kept.
  template <class Make>
  auto ask(const Question& question, Answer& answer, Make make) -> decltype(make(answer)) {
    uint64_t hash = 0;
    for (const int64_t word : question) hash = (hash ^ uint64_t(word)) * 0x9E3779B97F4A7C15u;
    Entry& entry = entries_[hash >> 32 & (places - 1)];
    if (!entry.known || entry.question != question) {
      Answer made;
      const auto status = make(made);
      if (status != decltype(make(made)){}) return status;
      entry = {made, question, true};
    }
    answer = entry.answer;
    return {};
  }

 private:
  static_assert((places & (places - 1)) == 0);
  struct Entry {
    Answer answer;
    Question question;
    bool known = false;
  };
  Entry entries_[places];
};

}  // namespace mimic
