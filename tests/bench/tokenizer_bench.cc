// tokenizer_bench [OPTIONS] [DIRECTORY|FILE...]: the speed of tokenizers on one core.
//
// Prints, for each: what loading costs, MB/s of Encode on English and on mixed text, and what one
// word of half a megabyte and of a megabyte costs, whose ratio is 2 where time is linear. Times are
// processor time, the best of several runs: what else runs on the machine does not count.
// Benchmarks print, people judge.
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "engine/load_text.h"
#include "engine/text/sentencepiece_source.h"
#include "engine/text/tekken.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_json.h"
#include "tests/testing/testdata.h"

namespace fastgen {
namespace {

namespace fs = std::filesystem;

double ProcessorSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

// The most memory that the process has held, in MB.
double PeakMemoryMb() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

std::string ReadFile(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

bool Contains(const fs::path& path, const char* part) {
  return path.filename().string().find(part) != std::string::npos;
}

// The tokenizer in a directory whose files may have other names than in a checkpoint.
fs::path FindTokenizer(const fs::path& path) {
  if (!fs::is_directory(path)) return path;
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  if (fs::exists(path / "tokenizer.json")) return path / "tokenizer.json";
  for (const fs::path& file : files) {
    if ((Contains(file, "tekken") && file.extension() == ".json") || Contains(file, ".model") ||
        file.extension() == ".gguf") {
      return file;
    }
  }
  return {};
}

absl::StatusOr<TokenizerSource> ReadSource(const fs::path& file) {
  if (file.extension() == ".gguf") {
    const auto gguf = GgufFile::Open(file.string());
    if (!gguf.ok()) return gguf.status();
    return TokenizerSourceFromGguf(*gguf);
  }
  if (Contains(file, "tekken")) return ParseTekken(ReadFile(file));
  if (Contains(file, ".model")) return SourceFromSentencePieceModel(ReadFile(file));
  const fs::path config = file.parent_path() / "tokenizer_config.json";
  return ParseTokenizerJson(ReadFile(file), fs::exists(config) ? ReadFile(config) : "");
}

// The shortest of several runs, in seconds; -1 where the text is refused.
double TimeEncode(const Tokenizer& tokenizer, const std::string& text, double seconds) {
  double best = -1;
  const double start = ProcessorSeconds();
  do {
    const double begin = ProcessorSeconds();
    const auto ids = tokenizer.Encode(text, {});
    const double taken = ProcessorSeconds() - begin;
    if (!ids.ok()) return -1;
    best = best < 0 ? taken : std::min(best, taken);
  } while (ProcessorSeconds() - start < seconds);
  return best;
}

struct Texts {
  std::string english;
  std::string mixed;
  std::string letters;  // one word
};

// `text`, again and again, up to a megabyte; cut between characters.
std::string Megabyte(const std::string& text) {
  std::string out;
  while (!text.empty() && out.size() < 1'000'000) out += text;
  return out;
}

std::string Letters(const std::string& english) {
  std::string letters;
  for (const char c : english) {
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) letters.push_back(c);
  }
  return Megabyte(letters);
}

// The project's own documents, and its source and the texts of the tokenizer goldens.
Texts DefaultTexts() {
  const fs::path root = FASTGEN_SOURCE_DIR;
  Texts texts;
  std::vector<fs::path> documents = {root / "README.md"};
  for (const auto& entry : fs::recursive_directory_iterator(root / "docs")) {
    if (entry.path().extension() == ".md") documents.push_back(entry.path());
  }
  std::sort(documents.begin(), documents.end());
  for (const fs::path& document : documents) texts.english += ReadFile(document);
  texts.mixed = texts.english.substr(0, 20'000) +
                ReadFile(testing::SourceTestdata() / "tokenizer" / "golden.jsonl");
  for (const auto& entry : fs::directory_iterator(root / "tests" / "engine" / "text")) {
    if (entry.path().extension() == ".cc") texts.mixed += ReadFile(entry.path());
  }
  return texts;
}

int Report(const fs::path& path, const Texts& texts, double seconds) {
  const fs::path file = FindTokenizer(path);
  const std::string name = path.filename().string();
  if (file.empty()) {
    std::fprintf(stderr, "%s: no tokenizer\n", path.c_str());
    return 1;
  }
  const double begin = ProcessorSeconds();
  auto source = ReadSource(file);
  const double parsed = ProcessorSeconds();
  if (!source.ok()) {
    std::fprintf(stderr, "%s: %s\n", file.c_str(), source.status().ToString().c_str());
    return 1;
  }
  const auto made = MakeTokenizer(*std::move(source));
  if (!made.ok()) {
    std::fprintf(stderr, "%s: %s\n", file.c_str(), made.status().ToString().c_str());
    return 1;
  }
  const double load_ms = (parsed - begin) * 1e3;
  const double make_ms = (ProcessorSeconds() - parsed) * 1e3;
  const double peak_mb = PeakMemoryMb();
  const auto speed = [&](const std::string& text) {
    return static_cast<double>(text.size()) / TimeEncode(**made, text, seconds) / 1e6;
  };
  std::printf("%-16s %6.0f %6.0f %7.0f %9.1f %9.1f", name.c_str(), load_ms, make_ms, peak_mb,
              speed(texts.english), speed(texts.mixed));
  for (const std::string& word : {texts.letters, std::string(texts.letters.size(), 'a')}) {
    const double half = TimeEncode(**made, word.substr(0, word.size() / 2), 0.1);
    const double whole = TimeEncode(**made, word, 0.1);
    std::printf("   %6.0f %6.0f %5.2f", half * 1e3, whole * 1e3, whole / half);
  }
  std::printf("\n");
  return 0;
}

int Main(int argc, char** argv) {
  CLI::App app("The speed of tokenizers on one core.");
  std::vector<std::string> paths;
  std::string english;
  std::string mixed;
  double seconds = 0.5;
  app.add_option("path", paths,
                 "directories or files: tokenizer.json, tekken.json, tokenizer.model, GGUF; "
                 "default: every tokenizer of the shared goldens, or the small one of the tree");
  app.add_option("--english", english, "an English text (default: this project's documents)");
  app.add_option("--mixed", mixed, "a text of many languages (default: goldens and source)");
  app.add_option("--seconds", seconds, "how long each text is encoded")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (paths.empty()) {
    if (const auto shared = testing::SharedTestdata()) {
      for (const auto& entry : fs::directory_iterator(*shared / "tokenizers")) {
        if (entry.is_directory()) paths.push_back(entry.path().string());
      }
      std::sort(paths.begin(), paths.end());
    } else {
      paths.push_back((testing::SourceTestdata() / "tokenizer").string());
    }
  }
  Texts texts = DefaultTexts();
  if (!english.empty()) texts.english = ReadFile(english);
  if (!mixed.empty()) texts.mixed = ReadFile(mixed);
  texts.letters = Letters(texts.english);
  texts.english = Megabyte(texts.english);
  texts.mixed = Megabyte(texts.mixed);
  std::printf("%-16s %6s %6s %7s %9s %9s   %20s   %20s\n", "", "parse", "make", "memory", "English",
              "mixed", "a word of letters", "a word of 'a'");
  std::printf("%-16s %6s %6s %7s %9s %9s   %6s %6s %6s  %6s %6s %6s\n", "", "ms", "ms", "MB peak",
              "MB/s", "MB/s", "half", "1 MB", "ratio", "half", "1 MB", "ratio");
  int failures = 0;
  for (const std::string& path : paths) {
    // Each in a process of its own, so that its memory is its own.
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
      const int status = Report(path, texts, seconds);
      std::fflush(stdout);
      _exit(status);
    }
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) ++failures;
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace fastgen

int main(int argc, char** argv) { return fastgen::Main(argc, argv); }
