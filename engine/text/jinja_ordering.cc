#include "engine/text/jinja_ordering.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/status_macros.h"
#include "engine/text/jinja_methods.h"

namespace fastgen::jinja {

namespace {

absl::StatusOr<Value> GetStep(Heap& heap, const Value& value, const Value& key,
                              const Value* fallback) {
  ASSIGN_OR_RETURN(Value found, GetItem(heap, value, key));
  return found.is(Kind::kUndefined) && fallback != nullptr ? *fallback : found;
}

}  // namespace

absl::StatusOr<Value> GetPath(Heap& heap, const Value& value, const Value& path,
                              const Value* fallback) {
  if (!path.is(Kind::kString)) return GetStep(heap, value, path, fallback);
  Value at = value;
  std::string_view rest = path.bytes();
  while (true) {
    size_t dot = std::min(rest.find('.'), rest.size());
    size_t begin = rest.data() - path.bytes().data();
    Value name = heap.View(Slice(path.text(), begin, begin + dot));
    bool is_index = dot > 0 && dot < 10 &&
                    name.bytes().find_first_not_of("0123456789") == std::string_view::npos;
    if (is_index) name = Value::Int(std::stoll(std::string(name.bytes())));
    ASSIGN_OR_RETURN(at, GetStep(heap, at, name, fallback));
    if (dot == rest.size()) return at;
    rest.remove_prefix(dot + 1);
  }
}

namespace {

absl::StatusOr<Value> SortKey(Heap& heap, const Value& item, const Value* attribute,
                              const SortOptions& options, const Value* fallback) {
  RETURN_IF_ERROR(heap.Charge(1));
  Value key = item;
  if (attribute != nullptr && !attribute->is(Kind::kNone)) {
    ASSIGN_OR_RETURN(key, GetPath(heap, item, *attribute, fallback));
  }
  if (!key.is(Kind::kString) || options.case_sensitive) return key;
  return ChangeCase(heap, key.text(), CaseStyle::kLower);
}

// The names of "a,b".
std::vector<Value> SplitNames(Heap& heap, const Text& names) {
  std::vector<Value> split;
  for (size_t at = 0; at <= names.bytes.size();) {
    const size_t end = std::min(names.bytes.find(',', at), names.bytes.size());
    split.push_back(heap.View(Slice(names, at, end)));
    at = end + 1;
  }
  return split;
}

}  // namespace

absl::StatusOr<std::vector<Value>> SortKeys(Heap& heap, const std::vector<Value>& items,
                                            const Value* attribute, const SortOptions& options,
                                            const Value* fallback) {
  std::vector<Value> names;
  if (options.several_attributes && attribute != nullptr && attribute->is(Kind::kString)) {
    names = SplitNames(heap, attribute->text());
  }
  std::vector<Value> keys;
  keys.reserve(items.size());
  for (const Value& item : items) {
    if (names.size() < 2) {
      ASSIGN_OR_RETURN(Value key, SortKey(heap, item, attribute, options, fallback));
      keys.push_back(key);
      continue;
    }
    std::vector<Value> parts;
    for (const Value& name : names) {
      ASSIGN_OR_RETURN(Value part, SortKey(heap, item, &name, options, fallback));
      parts.push_back(part);
    }
    ASSIGN_OR_RETURN(Value key, heap.MakeList(std::move(parts), Kind::kTuple));
    keys.push_back(key);
  }
  return keys;
}

absl::StatusOr<Value> SortBy(Heap& heap, std::vector<Value> items, std::vector<Value> keys,
                             const SortOptions& options) {
  std::vector<size_t> order(items.size());
  std::iota(order.begin(), order.end(), size_t{0});
  // A comparison that failed makes the rest of the sort meaningless but harmless: from then on all
  // count as equal.
  absl::Status failure;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    if (!failure.ok()) return false;
    absl::StatusOr<int> compared =
        options.reverse ? Compare(heap, keys[b], keys[a]) : Compare(heap, keys[a], keys[b]);
    failure = compared.status();
    return compared.ok() && *compared < 0;
  });
  RETURN_IF_ERROR(failure);
  std::vector<Value> sorted;
  sorted.reserve(items.size());
  for (size_t at : order) sorted.push_back(items[at]);
  return heap.MakeList(std::move(sorted));
}

}  // namespace fastgen::jinja
