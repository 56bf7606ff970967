// JsonFields: strict reading of one JSON object of a request.
//
// Each getter names its field, checks its type and range and returns nullopt when the field is
// absent or null. The first failure is kept in the ApiError that all readers of a request share
// (with the field's path as `param`); later getters go on harmlessly, so that callers check once at
// the end. What no getter asked for is reported by Unknown().
// Thread rule: one thread at a time.
// Tested by tests/server/gateway/json_fields_test.cc and tests/fuzz/openai_json_fuzzer.cc.
#pragma once

#include <boost/json/object.hpp>
#include <boost/json/value.hpp>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/gateway/errors.h"

namespace fastgen::gateway {

// The object that `body` holds; nullopt with `error` set when it is not one (malformed, deeper than
// 64, not UTF-8).
std::optional<boost::json::object> ParseJsonObject(std::string_view body,
                                                   std::optional<ApiError>* error);

class JsonFields {
 public:
  // `path` is "" for the request itself, else what params are prefixed with: "stream_options".
  JsonFields(const boost::json::object& object, std::string path, std::optional<ApiError>* error);

  // nullptr when absent or null.
  const boost::json::value* Find(std::string_view name);
  std::optional<bool> Bool(std::string_view name);
  std::optional<int64_t> Int(std::string_view name, int64_t min, int64_t max);
  std::optional<int32_t> Int32(std::string_view name, int32_t min = 0);
  // Finite and within a float's range.
  std::optional<float> Float(std::string_view name);
  std::optional<std::string> String(std::string_view name);
  const boost::json::object* Object(std::string_view name);
  const boost::json::array* Array(std::string_view name, size_t max_items);
  // Reads each item of a list of objects, until one fails. False without the list, or with an
  // error.
  bool EachObject(std::string_view name, size_t max_items,
                  const std::function<void(JsonFields*)>& read);
  std::optional<std::vector<std::string>> Strings(std::string_view name, size_t max_items);
  // Token ids.
  std::optional<std::vector<int32_t>> Ids(std::string_view name, size_t max_items);
  // The object's own names that start so; they live as long as the object.
  std::vector<std::string_view> NamesWithPrefix(std::string_view prefix) const;
  // Marks names that are accepted without effect.
  void Accept(std::initializer_list<std::string_view> names);

  // Sets the error, unless there is one.
  void Fail(std::string_view name, std::string message, std::string_view code = "invalid_value");
  bool ok() const { return !error_->has_value(); }
  std::optional<ApiError>* error() { return error_; }
  std::string PathOf(std::string_view name) const;
  // One that was read and is of no effect, in the same list.
  void AppendIgnored(std::string_view name, std::vector<std::string>* ignored) const;
  // Paths of the fields that nothing asked for, made safe for a header; bounded.
  void AppendUnknown(std::vector<std::string>* unknown) const;

 private:
  const boost::json::object& object_;
  const std::string path_;
  std::optional<ApiError>* const error_;
  std::vector<std::string_view> known_;
};

// A token id out of JSON; nullopt when it is not one.
std::optional<int32_t> TokenIdOf(const boost::json::value& value);
// "a boolean", "a list": for messages.
std::string_view KindOf(const boost::json::value& value);

}  // namespace fastgen::gateway
