#include "engine/text/piece_trie.h"

#include <algorithm>

namespace fastgen {

PieceTrie::PieceTrie(std::vector<std::pair<std::string_view, int32_t>> pieces) {
  std::sort(pieces.begin(), pieces.end());
  // The pieces that begin with the `depth` bytes that lead to a node.
  struct Range {
    size_t begin;
    size_t end;
    size_t depth;
  };
  std::vector<Range> ranges = {{0, pieces.size(), 0}};  // [nodes]
  labels_.push_back('\0');
  for (size_t node = 0; node < ranges.size(); ++node) {
    Range range = ranges[node];
    ids_.push_back(-1);
    while (range.begin < range.end && pieces[range.begin].first.size() == range.depth) {
      if (range.depth > 0) ids_.back() = pieces[range.begin].second;
      ++range.begin;
    }
    first_child_.push_back(static_cast<uint32_t>(ranges.size()));
    for (size_t begin = range.begin; begin < range.end;) {
      const char label = pieces[begin].first[range.depth];
      size_t end = begin + 1;
      while (end < range.end && pieces[end].first[range.depth] == label) ++end;
      ranges.push_back({begin, end, range.depth + 1});
      labels_.push_back(label);
      begin = end;
    }
  }
  first_child_.push_back(static_cast<uint32_t>(ranges.size()));
}

int32_t PieceTrie::Find(std::string_view text) const {
  int32_t found = -1;
  ForEachPrefix(text, [&](size_t num_bytes, int32_t id) {
    if (num_bytes == text.size()) found = id;
  });
  return found;
}

}  // namespace fastgen
