// SseReader: the events of a text/event-stream, from bytes as they come.
//
// Lines end in LF, CRLF or CR; an event is its "data" lines joined by LF, and ends with an empty
// line. Comments and other fields are skipped. A line or event above kMaxEventBytes is an error.
// Thread rule: one thread at a time. Tested by tests/clients/fgbench_test.cc and
// tests/fuzz/sse_reader_fuzzer.cc.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace fastgen {

class SseReader {
 public:
  static constexpr size_t kMaxEventBytes = 4 << 20;

  // Calls `on_event` with the data of each event that these bytes complete. False, for good, when
  // one was too large.
  template <typename OnEvent>
  bool Feed(std::string_view bytes, OnEvent&& on_event) {
    while (!bytes.empty() && !failed_) {
      const std::string_view line = TakeLine(&bytes);
      if (!line_ended_) break;
      if (EndLine(line)) on_event(std::string_view(data_));
    }
    return !failed_;
  }

 private:
  // The part of `bytes` up to the end of its first line, without it; line_ended_ says whether it
  // has one.
  std::string_view TakeLine(std::string_view* bytes);
  // A whole line. True when an event is complete in data_.
  bool EndLine(std::string_view line);

  std::string line_;  // the begin of a line whose end has not come
  std::string data_;
  bool line_ended_ = false;
  bool after_cr_ = false;  // an LF that comes next belongs to the line before
  bool has_data_ = false;
  bool complete_ = false;  // data_ was handed out
  bool failed_ = false;
};

}  // namespace fastgen
