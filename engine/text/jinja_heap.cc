// The Heap of jinja_value.h.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/jinja_value.h"

namespace fastgen::jinja {

absl::Status Heap::Charge(size_t steps) {
  num_steps_ += steps;
  if (num_steps_ > kMaxSteps) {
    return absl::ResourceExhaustedError(
        absl::StrCat("rendering took more than ", kMaxSteps, " steps"));
  }
  return ChargeBytes(0);
}

absl::Status Heap::ChargeBytes(size_t num_bytes) {
  num_bytes_ += num_bytes;
  if (num_bytes_ <= kMaxBytesMade) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("rendering made more than ", kMaxBytesMade, " bytes of values"));
}

Value Heap::View(Text text) {
  num_bytes_ += sizeof(Text) + text.untrusted.size() * sizeof(ByteRange);
  texts_.push_back(std::move(text));
  return Value::String(&texts_.back());
}

std::string_view Heap::Keep(std::string bytes) {
  num_bytes_ += sizeof(bytes) + bytes.size();
  strings_.push_back(std::move(bytes));
  return strings_.back();
}

Value Heap::Copy(std::string_view bytes, bool untrusted) {
  return View(MakeText(Keep(std::string(bytes)), untrusted));
}

absl::StatusOr<Value> Heap::Take(TextBuilder builder) {
  if (builder.overflowed()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a string grew beyond ", kMaxTextBytes, " bytes"));
  }
  auto [bytes, untrusted] = builder.Take();
  Value value = View(Text{Keep(std::move(bytes)), std::move(untrusted)});
  RETURN_IF_ERROR(Charge(1));
  return value;
}

namespace {

int DepthOf(const Value& value) {
  if (value.is_list()) return value.list().depth;
  if (value.is(Kind::kDict)) return value.dict().depth;
  return 0;
}

absl::Status CheckDepth(int depth) {
  if (depth <= kMaxNesting) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      absl::StrCat("lists and dicts nest deeper than ", kMaxNesting));
}

}  // namespace

absl::StatusOr<Value> Heap::MakeList(std::vector<Value> items, Kind kind) {
  RETURN_IF_ERROR(Charge(1 + items.size() / 4));
  RETURN_IF_ERROR(ChargeBytes(sizeof(List) + items.size() * sizeof(Value)));
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, DepthOf(item));
  RETURN_IF_ERROR(CheckDepth(depth + 1));
  lists_.push_back({std::move(items), depth + 1, /*is_group=*/false});
  return Value::Of(&lists_.back(), kind);
}

absl::StatusOr<Value> Heap::MakeGroup(const Value& grouper, const Value& list) {
  ASSIGN_OR_RETURN(Value pair, MakeList({grouper, list}, Kind::kTuple));
  lists_.back().is_group = true;
  return pair;
}

absl::StatusOr<Value> Heap::MakeDict(std::vector<std::pair<Value, Value>> entries) {
  RETURN_IF_ERROR(Charge(1 + entries.size()));
  RETURN_IF_ERROR(ChargeBytes(sizeof(Dict) + entries.size() * (2 * sizeof(Value) + 48)));
  Dict dict;
  dict.entries.reserve(entries.size());
  int depth = 0;
  for (auto& [key, value] : entries) {
    if (!CanBeKey(key)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "a value of type '", ToAbsl(TypeName(key.kind())), "' cannot be a dict's key"));
    }
    depth = std::max(depth, DepthOf(value));
    RETURN_IF_ERROR(Charge(key.is(Kind::kString) ? key.bytes().size() / 16 : dict.entries.size()));
    size_t at = FindEntry(dict, key);
    if (at < dict.entries.size()) {
      dict.entries[at].second = value;
      continue;
    }
    if (key.is(Kind::kString)) dict.by_name.emplace(key.bytes(), at);
    dict.entries.emplace_back(key, value);
  }
  RETURN_IF_ERROR(CheckDepth(depth + 1));
  dict.depth = depth + 1;
  dicts_.push_back(std::move(dict));
  return Value::Of(&dicts_.back());
}

Namespace* Heap::MakeNamespace() {
  num_bytes_ += sizeof(Namespace);
  return &namespaces_.emplace_back();
}

Loop* Heap::MakeLoop() {
  num_bytes_ += sizeof(Loop);
  return &loops_.emplace_back();
}

Value Heap::MakeMethod(Value self, std::string_view name) {
  num_bytes_ += sizeof(Method);
  methods_.push_back({self, name});
  return Value::Of(&methods_.back());
}

}  // namespace fastgen::jinja
