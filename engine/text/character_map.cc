#include "engine/text/character_map.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/strings.h"
#include "base/unicode.h"

namespace fastgen {
namespace {

// The longest text that is measured. Published ones have 33 bytes.
constexpr size_t kMaxMeasuredBytes = 1024;

template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat(parts...));
}

uint32_t ReadU32(std::string_view bytes, size_t index) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) {
    value |= uint32_t{static_cast<uint8_t>(bytes[4 * index + i])} << (8 * i);
  }
  return value;
}

bool IsValue(uint32_t unit) { return unit >> 31 != 0; }
bool HasLeaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
bool HasLabel(uint32_t unit, uint8_t byte) { return (unit & 0x800000FF) == byte; }
size_t Offset(uint32_t unit) { return size_t{unit >> 10} << ((unit & (1u << 9)) >> 6); }
size_t TextPlace(uint32_t unit) { return unit & 0x7FFFFFFF; }

}  // namespace

absl::StatusOr<CharacterMap> CharacterMap::Parse(std::string_view bytes, std::string_view name) {
  const absl::string_view what = ToAbsl(name);
  if (bytes.size() < 4) return Invalid(what, " has ", bytes.size(), " bytes");
  const size_t num_bytes = ReadU32(bytes, 0);
  bytes.remove_prefix(4);
  if (num_bytes % 1024 != 0 || num_bytes == 0 || num_bytes >= bytes.size()) {
    return Invalid(what, ": an array of ", num_bytes, " bytes does not fit in ", bytes.size());
  }
  CharacterMap map;
  map.texts_ = std::string(bytes.substr(num_bytes));
  const std::string& texts = map.texts_;
  if (texts.back() != '\0') return Invalid(what, ": its texts do not end with a zero");
  if (!IsValidUtf8(texts)) return Invalid(what, ": its texts are not UTF-8");
  const size_t num_units = num_bytes / 4;
  map.units_.reserve(num_units);
  for (size_t i = 0; i < num_units; ++i) map.units_.push_back(ReadU32(bytes, i));
  for (size_t i = 0; i < num_units; ++i) {
    const uint32_t unit = map.units_[i];
    if (i != 0 && IsValue(unit)) continue;  // no byte leads to it; every search begins at the first
    const size_t next = i ^ Offset(unit);
    if ((next | 0xFF) >= num_units) return Invalid(what, ": unit ", i, " points outside");
    if (!HasLeaf(unit)) continue;
    const size_t text = TextPlace(map.units_[next]);
    if (text >= texts.size() || (static_cast<uint8_t>(texts[text]) & 0xC0) == 0x80) {
      return Invalid(what, ": unit ", next, " points outside its texts");
    }
  }
  return map;
}

std::optional<std::string_view> CharacterMap::Find(std::string_view text) const {
  size_t place = Offset(units_[0]);
  for (const char c : text) {
    const uint8_t byte = static_cast<uint8_t>(c);
    place ^= byte;
    const uint32_t unit = units_[place];
    if (byte == 0 || !HasLabel(unit, byte)) return std::nullopt;
    place ^= Offset(unit);
    if (HasLeaf(unit)) return std::string_view(texts_.c_str() + TextPlace(units_[place]));
  }
  return std::nullopt;
}

size_t CharacterMap::MaxGrowth() const {
  // Breadth first: a unit's depth is then the least number of bytes that lead to it. A hostile
  // array may have circles.
  size_t growth = 1;
  std::vector<bool> seen(units_.size());
  std::vector<size_t> units = {0};
  for (size_t depth = 1; !units.empty(); ++depth) {
    std::vector<size_t> next;
    for (const size_t unit : units) {
      const size_t children = unit ^ Offset(units_[unit]);
      for (size_t byte = 1; byte < 256; ++byte) {
        const size_t child = children ^ byte;
        const uint32_t value = units_[child];
        if (seen[child] || !HasLabel(value, static_cast<uint8_t>(byte))) continue;
        seen[child] = true;
        next.push_back(child);
        if (!HasLeaf(value)) continue;
        const size_t text = TextPlace(units_[child ^ Offset(value)]);
        const size_t size = strnlen(texts_.c_str() + text, kMaxMeasuredBytes);
        if (size == kMaxMeasuredBytes) return size;
        growth = std::max(growth, (size + depth - 1) / depth);
      }
    }
    units = std::move(next);
  }
  return growth;
}

}  // namespace fastgen
