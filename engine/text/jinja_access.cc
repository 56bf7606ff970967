// Attributes, items and slices, declared in jinja_methods.h.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/strings.h"
#include "engine/text/jinja_methods.h"

namespace fastgen::jinja {
namespace {

// What `loop` offers; undefined beyond the ends for previtem and nextitem.
absl::StatusOr<Value> LoopAttribute(Heap& heap, const Value& value, const Text* name) {
  const Loop& loop = value.loop();
  const int64_t index = static_cast<int64_t>(loop.index);
  const int64_t length = static_cast<int64_t>(loop.items.size());
  std::string_view attribute = name->bytes;
  if (attribute == "index") return Value::Int(index + 1);
  if (attribute == "index0") return Value::Int(index);
  if (attribute == "revindex") return Value::Int(length - index);
  if (attribute == "revindex0") return Value::Int(length - index - 1);
  if (attribute == "first") return Value::Bool(index == 0);
  if (attribute == "last") return Value::Bool(index == length - 1);
  if (attribute == "length") return Value::Int(length);
  if (attribute == "depth") return Value::Int(loop.level + 1);
  if (attribute == "depth0") return Value::Int(loop.level);
  if (attribute == "previtem" && index > 0) return loop.items[index - 1];
  if (attribute == "nextitem" && index + 1 < length) return loop.items[index + 1];
  if (attribute == "cycle" || attribute == "changed") return heap.MakeMethod(value, attribute);
  return Value::Undefined(name, Kind::kLoop);
}

// The item at a Python index, or null.
const Value* ItemAt(const std::vector<Value>& items, int64_t index) {
  if (index < 0) index += static_cast<int64_t>(items.size());
  if (index < 0 || index >= static_cast<int64_t>(items.size())) return nullptr;
  return &items[index];
}

absl::StatusOr<Value> CharacterAt(Heap& heap, const Text& text, int64_t index) {
  if (index < 0) {
    RETURN_IF_ERROR(heap.ChargeScan(text.bytes.size()));
    index += static_cast<int64_t>(CountCharacters(text.bytes));
  }
  if (index < 0) return Value();
  size_t begin = OffsetOfCharacter(text.bytes, index);
  RETURN_IF_ERROR(heap.ChargeScan(begin));
  if (begin >= text.bytes.size()) return Value();
  return heap.View(Slice(text, begin, begin + DecodeAt(text.bytes, begin).size));
}

// The indices that a Python slice of `length` items selects: first, how many, and the step.
struct Selection {
  int64_t first = 0;
  int64_t count = 0;
  int64_t step = 1;
};

absl::StatusOr<Selection> Select(const SliceBounds& bounds, int64_t length) {
  Selection selection;
  // Steps beyond the length act like the length; this keeps the arithmetic small.
  selection.step = std::clamp(bounds.step.value_or(1), -length - 1, length + 1);
  if (selection.step == 0) return absl::InvalidArgumentError("slice step cannot be zero");
  bool forward = selection.step > 0;
  auto clip = [&](std::optional<int64_t> bound, int64_t fallback) {
    if (!bound.has_value()) return fallback;
    int64_t at = std::clamp(*bound, -length - 1, length + 1);
    if (at < 0) at += length;
    return std::clamp(at, forward ? int64_t{0} : int64_t{-1}, forward ? length : length - 1);
  };
  selection.first = clip(bounds.start, forward ? 0 : length - 1);
  int64_t stop = clip(bounds.stop, forward ? length : -1);
  int64_t span = forward ? stop - selection.first : selection.first - stop;
  int64_t stride = forward ? selection.step : -selection.step;
  selection.count = span > 0 ? (span + stride - 1) / stride : 0;
  return selection;
}

absl::StatusOr<Value> SliceText(Heap& heap, const Text& text, const SliceBounds& bounds) {
  RETURN_IF_ERROR(heap.ChargeScan(text.bytes.size()));
  int64_t length = static_cast<int64_t>(CountCharacters(text.bytes));
  ASSIGN_OR_RETURN(Selection selection, Select(bounds, length));
  if (selection.count == 0) return heap.Constant("");
  if (selection.step == 1) {
    size_t begin = OffsetOfCharacter(text.bytes, selection.first);
    size_t end = begin + OffsetOfCharacter(text.bytes.substr(begin), selection.count);
    return heap.View(Slice(text, begin, end));
  }
  RETURN_IF_ERROR(heap.Charge(length));
  std::vector<size_t> offsets;
  for (size_t at = 0; at < text.bytes.size(); at += DecodeAt(text.bytes, at).size) {
    offsets.push_back(at);
  }
  offsets.push_back(text.bytes.size());
  TextBuilder out(kMaxTextBytes);
  for (int64_t i = 0, at = selection.first; i < selection.count; ++i, at += selection.step) {
    out.AppendSlice(text, offsets[at], offsets[at + 1]);
  }
  return heap.Take(std::move(out));
}

}  // namespace

absl::StatusOr<Value> GetAttribute(Heap& heap, const Value& value, const Text* name) {
  RETURN_IF_ERROR(heap.ChargeScan(name->bytes.size()));
  if (HasMethod(value, name->bytes)) return heap.MakeMethod(value, name->bytes);
  switch (value.kind()) {
    case Kind::kUndefined:
      return UndefinedError(value);
    case Kind::kDict: {
      const Value* found = value.dict().Find(name->bytes);
      return found != nullptr ? *found : Value::Undefined(name, Kind::kDict);
    }
    case Kind::kNamespace: {
      const Value* found = value.name_space().Find(name->bytes);
      return found != nullptr ? *found : Value::Undefined(name, Kind::kNamespace);
    }
    case Kind::kLoop:
      return LoopAttribute(heap, value, name);
    case Kind::kTuple:
      if (value.list().is_group && name->bytes == "grouper") return value.list().items[0];
      if (value.list().is_group && name->bytes == "list") return value.list().items[1];
      return Value::Undefined(name, Kind::kTuple);
    default:
      return Value::Undefined(name, value.kind());
  }
}

absl::StatusOr<Value> GetItem(Heap& heap, const Value& value, const Value& key) {
  RETURN_IF_ERROR(heap.Charge(1));
  if (value.is(Kind::kUndefined)) return UndefinedError(value);
  const Text* name = key.is(Kind::kString) ? &key.text() : nullptr;
  if (value.is(Kind::kDict)) {
    ASSIGN_OR_RETURN(const Value* found, FindKey(heap, value.dict(), key));
    if (found != nullptr) return *found;
  } else if (value.is_list() && key.is_integral()) {
    const Value* found = ItemAt(value.list().items, key.AsInt());
    return found != nullptr ? *found : Value::Undefined(name, value.kind());
  } else if (value.is(Kind::kString) && key.is_integral()) {
    return CharacterAt(heap, value.text(), key.AsInt());
  }
  if (name != nullptr) return GetAttribute(heap, value, name);
  return Value::Undefined(name, value.kind());
}

absl::StatusOr<Value> GetSlice(Heap& heap, const Value& value, const SliceBounds& bounds) {
  if (value.is(Kind::kUndefined)) return UndefinedError(value);
  if (value.is(Kind::kString)) return SliceText(heap, value.text(), bounds);
  if (!value.is_list()) return Value::Undefined(nullptr, value.kind());
  const std::vector<Value>& items = value.list().items;
  ASSIGN_OR_RETURN(Selection selection, Select(bounds, static_cast<int64_t>(items.size())));
  std::vector<Value> selected;
  selected.reserve(selection.count);
  for (int64_t i = 0, at = selection.first; i < selection.count; ++i, at += selection.step) {
    selected.push_back(items[at]);
  }
  ASSIGN_OR_RETURN(Value slice, heap.MakeList(std::move(selected), value.kind()));
  return slice.WithUntrusted(value.untrusted());
}

}  // namespace fastgen::jinja
