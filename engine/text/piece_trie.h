// PieceTrie: which pieces of a vocabulary stand at a place of a text.
//
// The nodes lie in breadth-first order, so the children of one node are neighbours, in the order of
// their bytes: a node is the place of its first child and nothing more, and a child is found by a
// search for one byte among at most 256. Built in time linear in the pieces once they are sorted.
// Thread rule: immutable after construction; any thread.
// Tested by tests/engine/text/unigram_test.cc.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fastgen {

class PieceTrie {
 public:
  // Empty pieces are never found; of two that are the same, one is.
  explicit PieceTrie(std::vector<std::pair<std::string_view, int32_t>> pieces);

  // Calls `visit` with the size and the id of every piece that `text` begins with, the shortest
  // first.
  template <typename Visit>
  void ForEachPrefix(std::string_view text, Visit visit) const {
    uint32_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      const uint32_t begin = first_child_[node];
      const void* const child = std::memchr(labels_.data() + begin, static_cast<uint8_t>(text[i]),
                                            first_child_[node + 1] - begin);
      if (child == nullptr) return;
      node = static_cast<uint32_t>(static_cast<const char*>(child) - labels_.data());
      if (ids_[node] >= 0) visit(i + 1, ids_[node]);
    }
  }

  // The id of the piece that is `text`; -1: there is none.
  int32_t Find(std::string_view text) const;

 private:
  // [nodes]; node 0 is the root.
  std::string labels_;                 // the byte that leads to the node
  std::vector<int32_t> ids_;           // of the piece that ends there, or -1
  std::vector<uint32_t> first_child_;  // [nodes + 1]
};

}  // namespace fastgen
