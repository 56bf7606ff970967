#include "engine/text/jinja_json.h"

#include <boost/json/basic_parser_impl.hpp>
#include <cstdlib>
#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace fastgen::jinja {
namespace {

namespace json = boost::json;

// Receives the parser's events and builds values bottom up. `status` keeps what the heap refused.
class Builder {
 public:
  explicit Builder(Heap* heap) : heap_(*heap) {}

  static constexpr size_t max_object_size = size_t(-1);
  static constexpr size_t max_array_size = size_t(-1);
  static constexpr size_t max_key_size = size_t(-1);
  static constexpr size_t max_string_size = size_t(-1);

  absl::Status status;
  Value result() const { return stack_.empty() ? Value() : stack_.back(); }

  bool on_document_begin(json::error_code&) { return true; }
  bool on_document_end(json::error_code&) { return true; }
  bool on_object_begin(json::error_code&) { return true; }
  bool on_array_begin(json::error_code&) { return true; }

  bool on_object_end(size_t n, json::error_code& error) {
    std::vector<std::pair<Value, Value>> entries(n);
    for (size_t i = n; i-- > 0;) {
      entries[i].second = Pop();
      entries[i].first = Pop();
    }
    return Push(heap_.MakeDict(std::move(entries)), error);
  }
  bool on_array_end(size_t n, json::error_code& error) {
    std::vector<Value> items(stack_.end() - static_cast<ptrdiff_t>(n), stack_.end());
    stack_.resize(stack_.size() - n);
    return Push(heap_.MakeList(std::move(items)), error);
  }

  bool on_key_part(json::string_view part, size_t, json::error_code& error) {
    return on_string_part(part, 0, error);
  }
  bool on_key(json::string_view part, size_t, json::error_code& error) {
    return on_string(part, 0, error);
  }
  bool on_string_part(json::string_view part, size_t, json::error_code&) {
    text_.append(part.data(), part.size());
    return true;
  }
  bool on_string(json::string_view part, size_t, json::error_code& error) {
    text_.append(part.data(), part.size());
    Value value = heap_.Copy(text_, /*untrusted=*/true);
    text_.clear();
    return Push(value, error);
  }

  bool on_number_part(json::string_view part, json::error_code&) {
    text_.append(part.data(), part.size());
    return true;
  }
  bool on_int64(int64_t number, json::string_view, json::error_code& error) {
    text_.clear();
    return Push(Value::Int(number, /*untrusted=*/true), error);
  }
  bool on_uint64(uint64_t number, json::string_view, json::error_code& error) {
    text_.clear();
    return Push(number <= INT64_MAX ? Value::Int(static_cast<int64_t>(number), /*untrusted=*/true)
                                    : Value::Float(static_cast<double>(number), /*untrusted=*/true),
                error);
  }
  // Reads the digits again: the library's own conversion may be off by one unit in the last place.
  bool on_double(double, json::string_view part, json::error_code& error) {
    text_.append(part.data(), part.size());
    Value value = Value::Float(std::strtod(text_.c_str(), nullptr), /*untrusted=*/true);
    text_.clear();
    return Push(value, error);
  }

  bool on_bool(bool value, json::error_code& error) {
    return Push(Value::Bool(value, /*untrusted=*/true), error);
  }
  bool on_null(json::error_code& error) { return Push(Value::None(/*untrusted=*/true), error); }
  bool on_comment_part(json::string_view, json::error_code&) { return true; }
  bool on_comment(json::string_view, json::error_code&) { return true; }

 private:
  bool Push(const absl::StatusOr<Value>& value, json::error_code& error) {
    status = value.ok() ? heap_.Charge(1) : value.status();
    if (!status.ok()) {
      error = json::make_error_code(json::error::exception);
      return false;
    }
    stack_.push_back(value->WithUntrusted(true));
    return true;
  }
  Value Pop() {
    Value value = stack_.back();
    stack_.pop_back();
    return value;
  }

  Heap& heap_;
  std::vector<Value> stack_;
  std::string text_;
};

}  // namespace

absl::StatusOr<Value> ParseJson(Heap& heap, std::string_view text) {
  json::parse_options options;
  options.max_depth = kMaxJsonDepth;
  json::error_code error;
  try {
    json::basic_parser<Builder> parser(options, &heap);
    size_t used = parser.write_some(/*more=*/false, text.data(), text.size(), error);
    if (!error && used < text.size()) error = json::make_error_code(json::error::extra_data);
    if (!parser.handler().status.ok()) return parser.handler().status;
    if (!error) return parser.handler().result();
    return absl::InvalidArgumentError(
        absl::StrCat("not JSON at byte ", used, ": ", error.message()));
  } catch (const std::exception& e) {
    return absl::ResourceExhaustedError(absl::StrCat("reading JSON failed: ", e.what()));
  }
}

}  // namespace fastgen::jinja
