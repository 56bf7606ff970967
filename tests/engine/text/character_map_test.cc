#include "engine/text/character_map.h"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "engine/text/text_normalizer.h"

namespace fastgen {
namespace {

// A table with an entry for one character of one byte, laid out by hand: the first unit leads to
// the unit at (256 ^ byte), which has a leaf at 512.
struct Table {
  char character = 'x';
  std::string text = "yz";
  uint32_t first = 256u << 10;
  uint32_t leaf = 1u << 31;  // the place of the text

  std::string Bytes() const {
    std::vector<uint32_t> units(1024);
    units[0] = first;
    const uint32_t place = 256 ^ static_cast<uint8_t>(character);
    units[place] = (place ^ 512) << 10 | 1u << 8 | static_cast<uint8_t>(character);
    units[512] = leaf;
    std::string bytes = {'\0', '\x10', '\0', '\0'};  // 4096
    for (const uint32_t unit : units) {
      for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(unit >> (8 * i)));
    }
    return bytes + text + '\0';
  }
};

std::string Refusal(const std::string& bytes) {
  return std::string(CharacterMap::Parse(bytes, "map").status().message());
}

NormalizedText Normalized(const Table& table, std::string_view text,
                          absl::Span<const ByteRange> untrusted = {}) {
  NormalizerStep step;
  step.kind = NormalizerStep::Kind::kCharacterMap;
  step.content = table.Bytes();
  const auto normalizer = TextNormalizer::Create({step});
  REQUIRE(normalizer.ok());
  return normalizer->Apply(text, untrusted);
}

}  // namespace

TEST_CASE("a table gives what the shortest beginning with an entry becomes", "[text]") {
  const auto map = CharacterMap::Parse(Table().Bytes(), "map");
  REQUIRE(map.ok());
  CHECK(map->Find("x") == "yz");
  CHECK(map->Find("xx") == "yz");
  CHECK(map->Find("y") == std::nullopt);
  CHECK(map->Find("") == std::nullopt);
  CHECK(map->Find(std::string_view("\0x", 2)) == std::nullopt);
  CHECK(map->MaxGrowth() == 2);
}

TEST_CASE("a short cluster is replaced as a whole and a long one by its characters", "[text]") {
  CHECK(Normalized({}, "axbx").text == "ayzbyz");
  CHECK(Normalized({}, "x\u0301x").text == "yzyz");
  CHECK(Normalized({}, "x\u0301\u0301b").text == "yzb");
  CHECK(Normalized({}, "x\u0301\u0301\u0301b").text == "yz\u0301\u0301\u0301b");
  CHECK(Normalized({'x', ""}, "axb").text == "ab");
}

TEST_CASE("what a table makes of untrusted text is untrusted", "[text]") {
  const ByteRange typed = {1, 2};
  const NormalizedText out = Normalized({}, "axb", {&typed, 1});
  CHECK(out.text == "ayzb");
  REQUIRE(out.untrusted.size() == 1);
  CHECK(out.untrusted[0].begin == 1);
  CHECK(out.untrusted[0].end == 3);
}

TEST_CASE("a table that points outside itself is refused", "[text]") {
  const std::string good = Table().Bytes();
  CHECK(Refusal("abc") == "map has 3 bytes");
  CHECK(Refusal(good.substr(0, 4096)) == "map: an array of 4096 bytes does not fit in 4092");
  CHECK(Refusal(good.substr(0, good.size() - 1)) == "map: its texts do not end with a zero");
  CHECK(Refusal(good + '\xFF' + '\0') == "map: its texts are not UTF-8");
  Table table;
  table.first = 2048u << 10;
  CHECK(Refusal(table.Bytes()) == "map: unit 0 points outside");
  table.first |= 1u << 31;  // every search begins there, whatever it is
  CHECK(Refusal(table.Bytes()) == "map: unit 0 points outside");
  table = Table();
  table.leaf = 3;
  CHECK(Refusal(table.Bytes()) == "map: unit 512 points outside its texts");
  table.text = "\u00e9";
  table.leaf = 1;
  CHECK(Refusal(table.Bytes()) == "map: unit 512 points outside its texts");
}

TEST_CASE("a table that makes texts many times longer is refused", "[text]") {
  const auto message = [](size_t num_bytes) {
    NormalizerStep step;
    step.kind = NormalizerStep::Kind::kCharacterMap;
    step.content = Table{'x', std::string(num_bytes, 'y')}.Bytes();
    return std::string(TextNormalizer::Create({step}).status().message());
  };
  CHECK(message(64) == "");
  CHECK(message(65) == "the normalizers may make a text more than 64 times longer");
  CHECK(message(100'000) == "the normalizers may make a text more than 64 times longer");
  NormalizerStep step;
  step.kind = NormalizerStep::Kind::kCharacterMap;
  step.content = Table().Bytes();
  CHECK(TextNormalizer::Create({step, step}).status().message() ==
        "a second table of characters is not supported");
  step.content.assign((4 << 20) + 1, 'a');
  CHECK(TextNormalizer::Create({step}).status().message() ==
        "the table of characters has 4194305 bytes, more than 4194304");
}

}  // namespace fastgen
