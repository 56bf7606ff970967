#include "engine/text/jinja_arguments.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/strings.h"

namespace fastgen::jinja {

const Value* Arguments::Find(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [given, value] : named) {
    if (given->bytes == name) return &value;
  }
  return nullptr;
}

absl::Status Arguments::Check(std::initializer_list<std::string_view> names) const {
  if (positional.size() > names.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("takes at most ", names.size(), " arguments, got ", positional.size()));
  }
  for (const auto& [given, value] : named) {
    auto found = std::find(names.begin(), names.end(), given->bytes);
    if (found == names.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("has no argument named '", ToAbsl(given->bytes.substr(0, 100)), "'"));
    }
    if (static_cast<size_t>(found - names.begin()) < positional.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("got its argument '", ToAbsl(given->bytes), "' twice"));
    }
  }
  return absl::OkStatus();
}

namespace {

absl::Status WrongType(std::string_view name, std::string_view wanted, const Value& value) {
  return absl::InvalidArgumentError(absl::StrCat("needs ", ToAbsl(wanted), " as '", ToAbsl(name),
                                                 "', not '", ToAbsl(TypeName(value.kind())), "'"));
}

}  // namespace

absl::StatusOr<const Text*> Arguments::FindText(size_t index, std::string_view name) const {
  const Value* value = Find(index, name);
  if (value == nullptr || value->is(Kind::kNone)) return nullptr;
  if (!value->is(Kind::kString)) return WrongType(name, "a string", *value);
  return &value->text();
}

absl::StatusOr<int64_t> Arguments::FindInt(size_t index, std::string_view name,
                                           int64_t fallback) const {
  const Value* value = Find(index, name);
  if (value == nullptr) return fallback;
  if (!value->is_integral()) return WrongType(name, "an integer", *value);
  return value->AsInt();
}

bool Arguments::FindBool(size_t index, std::string_view name, bool fallback) const {
  const Value* value = Find(index, name);
  return value == nullptr ? fallback : IsTrue(*value);
}

}  // namespace fastgen::jinja
