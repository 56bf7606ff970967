#include "server/trace_parent.h"

#include <algorithm>

namespace fastgen {
namespace {

constexpr size_t kLength = 55;  // of version 00
constexpr size_t kMaxLength = 512;

bool IsLowerHex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsId(std::string_view text) {
  return IsLowerHex(text) && text.find_first_not_of('0') != std::string_view::npos;
}

}  // namespace

bool IsTraceParent(std::string_view text) {
  if (text.size() < kLength || text.size() > kMaxLength) return false;
  if (text[2] != '-' || text[35] != '-' || text[52] != '-') return false;
  const std::string_view version = text.substr(0, 2);
  if (!IsLowerHex(version) || version == "ff") return false;
  if (text.size() > kLength && (version == "00" || text[kLength] != '-')) return false;
  return IsId(text.substr(3, 32)) && IsId(text.substr(36, 16)) && IsLowerHex(text.substr(53, 2));
}

std::string TraceParentOf(const grpc::ServerContextBase& context) {
  const auto [begin, end] = context.client_metadata().equal_range("traceparent");
  if (begin == end || std::next(begin) != end) return "";
  const std::string_view text(begin->second.data(), begin->second.size());
  return IsTraceParent(text) ? std::string(text) : "";
}

}  // namespace fastgen
