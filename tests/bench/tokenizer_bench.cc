// Speed of a tokenizer on one core: tokenizer_bench DIRECTORY TEXT_FILE [SECONDS].
//
// Prints MB/s of Encode on the whole text, and what one megabyte of a single word costs, in
// processor time: what else runs on the machine does not count.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_json.h"

namespace {

double ProcessorSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// The shortest of several runs, in seconds; -1 where the text is refused.
double TimeEncode(const fastgen::Tokenizer& tokenizer, const std::string& text, double seconds,
                  size_t* num_ids) {
  double best = -1;
  const double start = ProcessorSeconds();
  do {
    const double begin = ProcessorSeconds();
    const auto ids = tokenizer.Encode(text, {});
    const double taken = ProcessorSeconds() - begin;
    if (!ids.ok()) return -1;
    *num_ids = ids->size();
    best = best < 0 ? taken : std::min(best, taken);
  } while (ProcessorSeconds() - start < seconds);
  return best;
}

void Report(const char* name, const fastgen::Tokenizer& tokenizer, const std::string& text,
            double seconds) {
  size_t num_ids = 0;
  const double taken = TimeEncode(tokenizer, text, seconds, &num_ids);
  std::printf("%-24s %9zu bytes %9zu ids %8.1f ms %8.1f MB/s\n", name, text.size(), num_ids,
              taken * 1e3, static_cast<double>(text.size()) / taken / 1e6);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s TOKENIZER_DIRECTORY TEXT_FILE [SECONDS]\n", argv[0]);
    return 2;
  }
  const std::string directory = argv[1];
  const double seconds = argc > 3 ? std::atof(argv[3]) : 2;
  const double begin = ProcessorSeconds();
  auto source = fastgen::ParseTokenizerJson(ReadFile(directory + "/tokenizer.json"),
                                            ReadFile(directory + "/tokenizer_config.json"));
  const double parsed = ProcessorSeconds();
  if (!source.ok()) {
    std::fprintf(stderr, "%s\n", source.status().ToString().c_str());
    return 1;
  }
  const auto tokenizer = fastgen::MakeTokenizer(*std::move(source));
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s\n", tokenizer.status().ToString().c_str());
    return 1;
  }
  std::printf("parse %.0f ms, make %.0f ms\n", (parsed - begin) * 1e3,
              (ProcessorSeconds() - parsed) * 1e3);
  Report("text", **tokenizer, ReadFile(argv[2]), seconds);
  Report("1 MB of 'a'", **tokenizer, std::string(1'000'000, 'a'), 0);
  Report("1 MB of spaces", **tokenizer, std::string(1'000'000, ' '), 0);
  Report(
      "1 MB of 'ab '", **tokenizer,
      [] {
        std::string text;
        while (text.size() < 1'000'000) text += "ab ";
        return text;
      }(),
      0);
  return 0;
}
