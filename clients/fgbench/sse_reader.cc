#include "clients/fgbench/sse_reader.h"

namespace fastgen {

std::string_view SseReader::TakeLine(std::string_view* bytes) {
  if (line_ended_) line_.clear();
  line_ended_ = false;
  if (after_cr_ && bytes->front() == '\n') bytes->remove_prefix(1);
  after_cr_ = false;
  const size_t end = bytes->find_first_of("\r\n");
  const std::string_view part = bytes->substr(0, end);
  if (line_.size() + part.size() > kMaxEventBytes) {
    failed_ = true;
    return {};
  }
  if (end == std::string_view::npos) {
    line_ += part;
    bytes->remove_prefix(bytes->size());
    return {};
  }
  line_ended_ = true;
  after_cr_ = (*bytes)[end] == '\r';
  bytes->remove_prefix(end + 1);
  if (line_.empty()) return part;  // most lines come whole: no copy
  line_ += part;
  return line_;
}

bool SseReader::EndLine(std::string_view line) {
  if (complete_) {
    data_.clear();
    complete_ = has_data_ = false;
  }
  if (line.empty()) {
    complete_ = has_data_;
    return complete_;
  }
  constexpr std::string_view kData = "data";
  if (line.substr(0, kData.size()) != kData) return false;
  line.remove_prefix(kData.size());
  if (!line.empty() && line[0] != ':') return false;  // a field of another name
  if (!line.empty()) line.remove_prefix(1);
  if (!line.empty() && line[0] == ' ') line.remove_prefix(1);
  if (data_.size() + line.size() >= kMaxEventBytes) {
    failed_ = true;
    return false;
  }
  if (has_data_) data_ += '\n';
  data_ += line;
  has_data_ = true;
  return false;
}

}  // namespace fastgen
