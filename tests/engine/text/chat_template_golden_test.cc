// Real models' templates against what transformers rendered, and single features against what Jinja
// rendered.
#include <catch2/catch.hpp>

#include "tests/engine/text/jinja_testing.h"
#include "tests/testing/testdata.h"

namespace fastgen::testing {
namespace {

std::string Field(const jinja::Value& row, std::string_view name) {
  const jinja::Value* value = row.dict().Find(name);
  return value == nullptr ? "" : std::string(value->bytes());
}

// Whether the row renders as it says; otherwise what happened.
std::string Mismatch(const std::string& source, const jinja::Value& row) {
  absl::StatusOr<RenderedChat> rendered = RenderJinja(source, *row.dict().Find("context"));
  std::string error = Field(row, "error");
  if (row.dict().Find("rendered") != nullptr) {
    if (!rendered.ok()) return std::string(rendered.status().message());
    std::string expected = Field(row, "rendered");
    return rendered->text == expected ? "" : "got: " + rendered->text + "\nexpected: " + expected;
  }
  if (rendered.ok()) return "rendered '" + rendered->text + "' instead of the error: " + error;
  std::string message(rendered.status().message());
  bool same = message.find(ErrorMessage(error)) != std::string::npos;
  return same ? "" : "error: " + message + "\nexpected: " + error;
}

TEST_CASE("models' templates render as transformers renders them", "[text]") {
  std::optional<std::filesystem::path> shared = SharedTestdata();
  if (!shared) {
    WARN("models' templates: skipped, no shared test data");
    return;
  }
  size_t num_rows = 0;
  for (const std::string& line : ReadLines(*shared / "chat_templates" / "expected.jsonl")) {
    jinja::Heap heap;
    absl::StatusOr<jinja::Value> row = jinja::ParseJson(heap, line);
    REQUIRE(row.ok());
    std::string name = Field(*row, "template");
    INFO(name << " " << Field(*row, "case"));
    CHECK(Mismatch(ReadFile(*shared / "chat_templates" / name), *row) == "");
    ++num_rows;
  }
  CHECK(num_rows == 208);
}

TEST_CASE("each feature renders as Jinja renders it", "[text]") {
  size_t num_rows = 0;
  for (const std::string& line :
       ReadLines(SourceTestdata() / "chat_templates" / "features.jsonl")) {
    jinja::Heap heap;
    absl::StatusOr<jinja::Value> row = jinja::ParseJson(heap, line);
    REQUIRE(row.ok());
    std::string source = Field(*row, "template");
    INFO(source);
    CHECK(Mismatch(source, *row) == "");
    ++num_rows;
  }
  CHECK(num_rows > 100);
}

}  // namespace
}  // namespace fastgen::testing
