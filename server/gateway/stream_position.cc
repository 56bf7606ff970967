#include "server/gateway/stream_position.h"

#include <charconv>

#include "absl/strings/str_cat.h"
#include "server/gateway/sse.h"

namespace fastgen::gateway {

std::string StreamPosition::ToString() const {
  return absl::StrCat(tokens, ".", passed, ".", sent, ".", offset);
}

std::optional<StreamPosition> StreamPosition::Parse(std::string_view id) {
  StreamPosition position;
  const char* next = id.data();
  const char* const end = next + id.size();
  for (int32_t* field : {&position.tokens, &position.passed, &position.sent, &position.offset}) {
    if (field != &position.tokens && (next == end || *next++ != '.')) return std::nullopt;
    const auto parsed = std::from_chars(next, end, *field);
    if (parsed.ec != std::errc() || *field < 0) return std::nullopt;
    next = parsed.ptr;
  }
  if (next != end) return std::nullopt;
  return position;
}

StreamIds::StreamIds(const StreamPosition& start, bool moves)
    : moves_(moves), position_(start), num_to_pass_(start.passed), num_to_drop_(start.sent) {
  position_.sent = 0;
}

bool StreamIds::IsPassed(const v1::GenerateEvent& event) {
  const bool delta = event.has_delta() && event.delta().num_tokens() == 0;
  if (num_to_pass_ == 0 || (!delta && !event.has_finished())) return false;
  --num_to_pass_;
  return true;
}

void StreamIds::Stamp(size_t begin, std::string* out) {
  while (begin < out->size()) {
    const size_t blank = out->find(kSseEventEnd, begin);
    if (blank == std::string::npos) return;
    const size_t end = blank + kSseEventEnd.size();
    if (out->compare(begin, kSseDone.size(), kSseDone) == 0) {
      begin = end;
      continue;
    }
    ++position_.sent;
    if (num_to_drop_ > 0) {
      --num_to_drop_;
      out->erase(begin, end - begin);
      continue;
    }
    const std::string line = absl::StrCat("id: ", position_.ToString(), "\n");
    out->insert(begin, line);
    begin = end + line.size();
  }
}

void StreamIds::Move(const v1::GenerateEvent& event, size_t offset) {
  if (!moves_ || (!event.has_delta() && !event.has_finished())) return;
  if (event.has_delta() && event.delta().num_tokens() > 0) {
    position_.tokens += event.delta().num_tokens();
    position_.passed = 0;
  } else {
    ++position_.passed;
  }
  position_.sent = 0;
  num_to_drop_ = 0;
  position_.offset = static_cast<int32_t>(offset);
}

}  // namespace fastgen::gateway
