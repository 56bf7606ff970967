// ConfigFields: typed reads of one JSON object of a model's configuration files.
//
// A field that is absent and one that is null mean the same in these files. The first field that is
// missing, of a wrong type or refused is kept as the status, with its name and value; reads after
// it go on with what stands for an absent field, so that callers check once.
// Thread rule: one thread; the object outlives the reader.
// Tested by tests/engine/model/model_config_test.cc.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace fastgen {

class ConfigFields {
 public:
  // `prefix` opens every message: "config.json: ".
  ConfigFields(const boost::json::object& object, std::string_view prefix)
      : object_(object), prefix_(prefix) {}

  const absl::Status& status() const { return status_; }
  const boost::json::object& object() const { return object_; }

  // Null when absent.
  const boost::json::value* Find(std::string_view key) const;
  bool Has(std::string_view key) const { return Find(key) != nullptr; }

  // A size or a count: an integer above 0.
  int64_t RequiredSize(std::string_view key);
  int64_t Size(std::string_view key, int64_t absent);
  int64_t Int(std::string_view key, int64_t absent);
  double Number(std::string_view key, double absent);
  bool Bool(std::string_view key, bool absent);
  std::string String(std::string_view key, std::string_view absent);
  // A token id or a list of them, each in [0, vocab).
  std::vector<int32_t> Ids(std::string_view key, int64_t vocab);

  // A number that must be in [min, max], or in (min, max] for an open minimum.
  enum class Minimum { kClosed, kOpen };
  double NumberIn(std::string_view key, double absent, double min, double max, Minimum minimum);

  // UNIMPLEMENTED: the field's value is one that this version does not run.
  void Refuse(std::string_view key, std::string_view why);
  // INVALID_ARGUMENT: the field is `key`'s value, and must be something else.
  void WrongValue(std::string_view key, std::string_view wanted);
  void Missing(std::string_view key, std::string_view why);
  void Fail(absl::Status status);

 private:
  const boost::json::object& object_;
  const std::string prefix_;
  absl::Status status_;
};

// The object that a configuration file is. INVALID_ARGUMENT for text that is too long, too deep or
// no JSON object.
absl::StatusOr<boost::json::object> ParseConfigObject(std::string_view text,
                                                      std::string_view file_name);

}  // namespace fastgen
