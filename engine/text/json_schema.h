// JSON Schema, as a client sends it, to the form that the grammar library keeps to the letter.
//
// The library reads a part of JSON Schema; what it does not know it leaves out, and a schema
// without a type it takes for anything. Here a schema is either written in such a way that every
// output that the library then allows is valid under it, or refused with the place and the reason
// ("#/properties/a/uniqueItems: is not supported"). Outputs may be fewer than the schema allows: no
// unknown properties where some are listed, integers without an exponent, patterns that match a
// whole string and use no character that JSON escapes. Annotations (title, description, default,
// ..) are dropped, and so is what JSON Schema itself would ignore: keywords of another type,
// unknown ones, and unknown formats. Bounds: kMaxBytes of text, kMaxDepth levels, kMaxNodes
// schemas. Thread rule: pure functions, any thread. Tested by
// tests/engine/text/json_schema_test.cc; fuzzed by tests/fuzz/grammar_fuzzer.cc.
#pragma once

#include <boost/json.hpp>
#include <cstddef>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace fastgen {

inline constexpr size_t kMaxSchemaBytes = 128 << 10;
inline constexpr int kMaxSchemaDepth = 64;
inline constexpr int kMaxSchemaNodes = 4096;

// INVALID_ARGUMENT naming place and reason.
absl::StatusOr<boost::json::value> NormalizeSchema(const boost::json::value& schema);

// The JSON of an untrusted text of at most `max_bytes`; INVALID_ARGUMENT naming its fault.
absl::StatusOr<boost::json::value> ParseUntrustedJson(std::string_view text, size_t max_bytes);

}  // namespace fastgen
