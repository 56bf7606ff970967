#include "engine/text/jinja_value.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"

namespace fastgen::jinja {

Value Value::None(bool untrusted) {
  Value value;
  value.kind_ = Kind::kNone;
  value.untrusted_ = untrusted;
  return value;
}

Value Value::Bool(bool v, bool untrusted) {
  Value value;
  value.kind_ = Kind::kBool;
  value.untrusted_ = untrusted;
  value.bool_ = v;
  return value;
}

Value Value::Int(int64_t v, bool untrusted) {
  Value value;
  value.kind_ = Kind::kInt;
  value.untrusted_ = untrusted;
  value.int_ = v;
  return value;
}

Value Value::Float(double v, bool untrusted) {
  Value value;
  value.kind_ = Kind::kFloat;
  value.untrusted_ = untrusted;
  value.float_ = v;
  return value;
}

Value Value::String(const Text* v) {
  Value value;
  value.kind_ = Kind::kString;
  value.text_ = v;
  return value;
}

Value Value::Undefined(const Text* name, Kind owner) {
  Value value;
  value.text_ = name;
  value.owner_ = owner;
  return value;
}

Value Value::Of(const List* v, Kind kind) {
  Value value;
  value.kind_ = kind;
  value.list_ = v;
  return value;
}

Value Value::Of(const Dict* v) {
  Value value;
  value.kind_ = Kind::kDict;
  value.dict_ = v;
  return value;
}

Value Value::Of(Namespace* v) {
  Value value;
  value.kind_ = Kind::kNamespace;
  value.namespace_ = v;
  return value;
}

Value Value::Of(Loop* v) {
  Value value;
  value.kind_ = Kind::kLoop;
  value.loop_ = v;
  return value;
}

Value Value::Of(const Macro* v) {
  Value value;
  value.kind_ = Kind::kMacro;
  value.macro_ = v;
  return value;
}

Value Value::Of(const Method* v) {
  Value value;
  value.kind_ = Kind::kMethod;
  value.method_ = v;
  return value;
}

Value Value::Of(Function v) {
  Value value;
  value.kind_ = Kind::kFunction;
  value.function_ = v;
  return value;
}

bool Value::untrusted() const { return is(Kind::kString) ? text_->any_untrusted() : untrusted_; }

Value Value::WithUntrusted(bool also) const {
  Value value = *this;
  if (kind_ >= Kind::kNone && kind_ <= Kind::kDict && !is(Kind::kString)) {
    value.untrusted_ = untrusted_ || also;
  }
  return value;
}

const Value* Dict::Find(std::string_view name) const {
  auto found = by_name.find(name);
  return found == by_name.end() ? nullptr : &entries[found->second].second;
}

Value* Namespace::Find(std::string_view name) {
  for (auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

bool CanBeKey(const Value& value) {
  return value.is_number() || value.is(Kind::kNone) || value.is(Kind::kString);
}

namespace {

// True == 1 == 1.0 as in Python; strings equal by their bytes.
bool IsSameKey(const Value& a, const Value& b) {
  if (a.is(Kind::kString) || b.is(Kind::kString)) {
    return a.kind() == b.kind() && a.bytes() == b.bytes();
  }
  if (a.is(Kind::kNone) || b.is(Kind::kNone)) return a.kind() == b.kind();
  if (a.is_integral() && b.is_integral()) return a.AsInt() == b.AsInt();
  return a.AsFloat() == b.AsFloat();
}

}  // namespace

size_t FindEntry(const Dict& dict, const Value& key) {
  if (key.is(Kind::kString)) {
    auto found = dict.by_name.find(key.bytes());
    return found == dict.by_name.end() ? dict.entries.size() : found->second;
  }
  for (size_t i = 0; i < dict.entries.size(); ++i) {
    if (IsSameKey(dict.entries[i].first, key)) return i;
  }
  return dict.entries.size();
}

std::string_view TypeName(Kind kind) {
  switch (kind) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kMacro:
      return "Macro";
    case Kind::kFunction:
      return "function";
    case Kind::kMethod:
      return "builtin_function_or_method";
  }
  return "?";
}

bool IsTrue(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
    case Kind::kInt:
      return value.AsInt() != 0;
    case Kind::kFloat:
      return value.AsFloat() != 0;
    case Kind::kString:
      return !value.bytes().empty();
    case Kind::kList:
    case Kind::kTuple:
      return !value.list().items.empty();
    case Kind::kDict:
      return !value.dict().entries.empty();
    default:
      return true;
  }
}

namespace {

absl::StatusOr<bool> DictsEqual(Heap& heap, const Dict& a, const Dict& b) {
  if (a.entries.size() != b.entries.size()) return false;
  for (const auto& [key, value] : a.entries) {
    ASSIGN_OR_RETURN(const Value* other, FindKey(heap, b, key));
    if (other == nullptr) return false;
    ASSIGN_OR_RETURN(bool equal, IsEqual(heap, value, *other));
    if (!equal) return false;
  }
  return true;
}

absl::StatusOr<bool> ListsEqual(Heap& heap, const List& a, const List& b) {
  if (a.items.size() != b.items.size()) return false;
  for (size_t i = 0; i < a.items.size(); ++i) {
    ASSIGN_OR_RETURN(bool equal, IsEqual(heap, a.items[i], b.items[i]));
    if (!equal) return false;
  }
  return true;
}

}  // namespace

absl::StatusOr<bool> IsEqual(Heap& heap, const Value& a, const Value& b) {
  RETURN_IF_ERROR(heap.Charge(1));
  if (a.is_number() && b.is_number()) return IsSameKey(a, b);
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kString: {
      if (a.bytes().size() != b.bytes().size()) return false;
      RETURN_IF_ERROR(heap.ChargeScan(a.bytes().size()));
      return a.bytes() == b.bytes();
    }
    case Kind::kList:
    case Kind::kTuple:
      return ListsEqual(heap, a.list(), b.list());
    case Kind::kDict:
      return DictsEqual(heap, a.dict(), b.dict());
    case Kind::kNamespace:
      return &a.name_space() == &b.name_space();
    case Kind::kLoop:
      return &a.loop() == &b.loop();
    case Kind::kMacro:
      return &a.macro() == &b.macro();
    case Kind::kFunction:
      return a.function() == b.function();
    default:
      return false;
  }
}

absl::StatusOr<int> Compare(Heap& heap, const Value& a, const Value& b) {
  RETURN_IF_ERROR(heap.Charge(1));
  if (a.is(Kind::kUndefined)) return UndefinedError(a);
  if (b.is(Kind::kUndefined)) return UndefinedError(b);
  if (a.is_integral() && b.is_integral()) {
    return a.AsInt() < b.AsInt() ? -1 : a.AsInt() > b.AsInt() ? 1 : 0;
  }
  if (a.is_number() && b.is_number()) {
    return a.AsFloat() < b.AsFloat() ? -1 : a.AsFloat() > b.AsFloat() ? 1 : 0;
  }
  if (a.is(Kind::kString) && b.is(Kind::kString)) {
    RETURN_IF_ERROR(heap.ChargeScan(std::min(a.bytes().size(), b.bytes().size())));
    return a.bytes().compare(b.bytes());
  }
  if (a.is_list() && a.kind() == b.kind()) {
    const std::vector<Value>& x = a.list().items;
    const std::vector<Value>& y = b.list().items;
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      ASSIGN_OR_RETURN(bool equal, IsEqual(heap, x[i], y[i]));
      if (!equal) return Compare(heap, x[i], y[i]);
    }
    return x.size() < y.size() ? -1 : x.size() > y.size() ? 1 : 0;
  }
  return absl::InvalidArgumentError(absl::StrCat("'<' not supported between instances of '",
                                                 ToAbsl(TypeName(a.kind())), "' and '",
                                                 ToAbsl(TypeName(b.kind())), "'"));
}

absl::StatusOr<const Value*> FindKey(Heap& heap, const Dict& dict, const Value& key) {
  // A string is hashed and compared with its like; anything else is compared with all.
  RETURN_IF_ERROR(key.is(Kind::kString) ? heap.ChargeScan(key.bytes().size())
                                        : heap.Charge(1 + dict.entries.size() / 4));
  if (!CanBeKey(key)) return nullptr;
  size_t at = FindEntry(dict, key);
  return at < dict.entries.size() ? &dict.entries[at].second : nullptr;
}

absl::StatusOr<std::vector<Value>> Iterate(Heap& heap, const Value& value) {
  std::vector<Value> items;
  switch (value.kind()) {
    case Kind::kUndefined:
      return items;
    case Kind::kList:
    case Kind::kTuple:
      RETURN_IF_ERROR(heap.Charge(value.list().items.size() / 4));
      return value.list().items;
    case Kind::kDict:
      RETURN_IF_ERROR(heap.Charge(value.dict().entries.size() / 4));
      for (const auto& [key, unused] : value.dict().entries) items.push_back(key);
      return items;
    case Kind::kString:
      for (size_t at = 0; at < value.bytes().size();) {
        size_t end = at + DecodeAt(value.bytes(), at).size;
        RETURN_IF_ERROR(heap.Charge(1));
        items.push_back(heap.View(Slice(value.text(), at, end)));
        at = end;
      }
      return items;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("'", ToAbsl(TypeName(value.kind())), "' object is not iterable"));
  }
}

absl::StatusOr<int64_t> Length(Heap& heap, const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      RETURN_IF_ERROR(heap.ChargeScan(value.bytes().size()));
      return static_cast<int64_t>(CountCharacters(value.bytes()));
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(value.list().items.size());
    case Kind::kDict:
      return static_cast<int64_t>(value.dict().entries.size());
    case Kind::kLoop:
      return static_cast<int64_t>(value.loop().items.size());
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("object of type '", ToAbsl(TypeName(value.kind())), "' has no len()"));
  }
}

absl::Status UndefinedError(const Value& value) {
  absl::string_view name = value.undefined_name() == nullptr
                               ? absl::string_view("value")
                               : ToAbsl(value.undefined_name()->bytes.substr(0, 100));
  if (value.undefined_owner() == Kind::kUndefined) {
    return absl::InvalidArgumentError(absl::StrCat("'", name, "' is undefined"));
  }
  if (value.undefined_name() == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("'", ToAbsl(TypeName(value.undefined_owner())),
                                                   "' has no item at that place"));
  }
  std::string owner = "None";
  if (value.undefined_owner() != Kind::kNone) {
    owner = absl::StrCat(ToAbsl(TypeName(value.undefined_owner())), " object");
  }
  return absl::InvalidArgumentError(absl::StrCat("'", owner, "' has no attribute '", name, "'"));
}

}  // namespace fastgen::jinja
