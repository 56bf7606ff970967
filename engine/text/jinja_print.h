// How values become text: Python's str(), repr() and json.dumps, with the provenance of every byte
// kept.
//
// A string inside a printed list or JSON keeps its ranges character by character, escapes included.
// Its quotes are untrusted when any of its bytes is; brackets and separators when the list or dict
// itself came from the request.
// Thread rule: one render, one thread.
// Tested by tests/engine/text/chat_template_golden_test.cc and jinja_provenance_test.cc.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "engine/text/jinja_value.h"

namespace fastgen::jinja {

// Python's repr of a float: the shortest digits that read back the same.
std::string FloatText(double value);

// Appends str(value): a string as it is, undefined as nothing.
absl::Status AppendString(Heap& heap, const Value& value, TextBuilder& out);
// Appends repr(value): strings in quotes.
absl::Status AppendRepr(Heap& heap, const Value& value, TextBuilder& out);
// str(value) as a value; a string is returned unchanged.
absl::StatusOr<Value> ToString(Heap& heap, const Value& value);

struct JsonFormat {
  bool ensure_ascii = false;
  bool sort_keys = false;
  int indent = -1;  // -1: all on one line
  Text item_separator;
  Text key_separator;
};

// Appends json.dumps(value). INVALID_ARGUMENT for what JSON cannot hold.
absl::Status AppendJson(Heap& heap, const Value& value, const JsonFormat& format, TextBuilder& out);

}  // namespace fastgen::jinja
