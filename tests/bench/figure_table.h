// FigureTable: the lines that kernels_bench prints, and the same figures as CSV.
//
// A section has one head line and lines of equal columns, which appear as they are measured. The
// CSV has one row a figure whatever the section, with every name and number that reproduces it; its
// first lines begin with # and say what machine it was.
// Thread rule: one thread.
// Tested by the smoke run of kernels_bench (tests/bench/CMakeLists.txt).
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "tests/bench/ceilings.h"

namespace fastgen::bench {

// What was measured.
struct Subject {
  std::string section;  // "product", "attention", ...
  std::string model;    // whose shape it is
  std::string name;     // of the matrix or op
  std::string format;   // of the weights or pages
  int64_t n = 0;        // outputs, or keys
  int64_t k = 0;        // inputs, or values in a head
  int64_t m = 0;        // rows, or queries
};

class FigureTable {
 public:
  // `filter`: figures whose label does not hold it are left out.
  FigureTable(std::string isa, int num_threads, std::string filter);
  ~FigureTable();
  FigureTable(const FigureTable&) = delete;
  FigureTable& operator=(const FigureTable&) = delete;

  absl::Status OpenCsv(const std::string& path, const std::string& machine);

  // "model/name format", what --filter looks into.
  static std::string Label(const Subject& subject);
  bool Wants(const Subject& subject) const;

  // The head of the lines that follow, printed with the first of them.
  void Section(const std::string& title);
  void Add(const Subject& subject, const Work& work, const Figure& figure);
  void AddTime(const Subject& subject, double seconds);
  void AddProbe(const std::string& name, const std::string& unit, double rate);
  void Skip(const Subject& subject, const std::string& why);
  // Of a section, a markdown table with a line for each label and a column for each M: GB/s where
  // reading bounds, else GOP/s, and the fraction.
  void PrintSummary(const std::string& section) const;

 private:
  void BeginSection();
  void BeginLine(const Subject& subject);
  void WriteCsv(const Subject& subject, double seconds, double gbps, double gops,
                const std::string& bound, double ceiling, double fraction, double core_share);

  const std::string isa_;
  const int num_threads_;
  const std::string filter_;
  struct Cell {
    Subject subject;
    std::string text;
  };
  std::vector<Cell> cells_;
  std::string title_;
  std::string last_label_;
  int num_lines_of_label_ = 0;
  std::FILE* csv_ = nullptr;
};

}  // namespace fastgen::bench
