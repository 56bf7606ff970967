#include "tests/bench/figure_table.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

namespace fastgen::bench {

FigureTable::FigureTable(std::string isa, int num_threads, std::string filter)
    : isa_(std::move(isa)), num_threads_(num_threads), filter_(std::move(filter)) {}

FigureTable::~FigureTable() {
  if (csv_ != nullptr) std::fclose(csv_);
}

absl::Status FigureTable::OpenCsv(const std::string& path, const std::string& machine) {
  csv_ = std::fopen(path.c_str(), "w");
  if (csv_ == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("--csv ", path, ": cannot be written: ", std::strerror(errno)));
  }
  std::fprintf(csv_, "# %s\n", machine.c_str());
  std::fprintf(csv_,
               "section,model,name,format,isa,threads,n,k,m,us,gb_per_s,gop_per_s,bound,ceiling,"
               "fraction,core_share\n");
  return absl::OkStatus();
}

std::string FigureTable::Label(const Subject& subject) {
  return absl::StrCat(subject.model, "/", subject.name, " ", subject.format);
}

bool FigureTable::Wants(const Subject& subject) const {
  return absl::StrCat(subject.section, " ", Label(subject)).find(filter_) != std::string::npos;
}

void FigureTable::Section(const std::string& title) {
  title_ = title;
  last_label_.clear();
  num_lines_of_label_ = 0;
}

void FigureTable::BeginSection() {
  if (!title_.empty()) std::printf("\n%s\n", title_.c_str());
  title_.clear();
}

void FigureTable::BeginLine(const Subject& subject) {
  BeginSection();
  const std::string label = Label(subject);
  // A blank line sets groups apart, not single lines.
  if (last_label_ != label && num_lines_of_label_ > 1) std::printf("\n");
  num_lines_of_label_ = last_label_ == label ? num_lines_of_label_ + 1 : 1;
  std::printf("%-30s %6ld x %-5ld %5ld", last_label_ == label ? "" : label.c_str(),
              static_cast<long>(subject.n), static_cast<long>(subject.k),
              static_cast<long>(subject.m));
  last_label_ = label;
}

void FigureTable::Add(const Subject& subject, const Work& work, const Figure& figure) {
  const double gbps = work.bytes / figure.seconds * 1e-9;
  const double gops = work.ops / figure.seconds * 1e-9;
  const std::string bound =
      figure.is_read ? "read" : std::string(InstructionName(work.instruction));
  BeginLine(subject);
  std::printf(" %10.1f %7.1f %8.0f   %-15s %7.0f %5.2f  %4.2f\n", figure.seconds * 1e6, gbps, gops,
              bound.c_str(), figure.ceiling, figure.fraction, figure.core_share);
  std::fflush(stdout);
  char cell[64];
  std::snprintf(cell, sizeof(cell), figure.is_read ? "%.1f GB/s (%.2f)" : "%.0f (%.2f)",
                figure.is_read ? gbps : gops, figure.fraction);
  cells_.push_back({subject, cell});
  WriteCsv(subject, figure.seconds, gbps, gops, bound, figure.ceiling, figure.fraction,
           figure.core_share);
}

void FigureTable::AddTime(const Subject& subject, double seconds) {
  BeginLine(subject);
  std::printf(" %10.1f\n", seconds * 1e6);
  std::fflush(stdout);
  WriteCsv(subject, seconds, 0, 0, "", 0, 0, 1);
}

void FigureTable::AddProbe(const std::string& name, const std::string& unit, double rate) {
  std::printf("  %-16s %8.1f %s\n", name.c_str(), rate, unit.c_str());
  std::fflush(stdout);
  WriteCsv({"probe", "", name, ""}, 0, unit == "GB/s" ? rate : 0, unit == "GB/s" ? 0 : rate, "",
           rate, 0, 1);
}

void FigureTable::Skip(const Subject& subject, const std::string& why) {
  BeginSection();
  std::printf("%-30s left out: %s\n", Label(subject).c_str(), why.c_str());
  last_label_.clear();
  num_lines_of_label_ = 0;
}

void FigureTable::PrintSummary(const std::string& section) const {
  std::set<int64_t> columns;
  std::vector<std::string> labels;
  std::map<std::pair<std::string, int64_t>, std::string> texts;
  for (const Cell& cell : cells_) {
    if (cell.subject.section != section) continue;
    const std::string label =
        absl::StrCat(Label(cell.subject), ", ", cell.subject.n, " x ", cell.subject.k);
    if (std::find(labels.begin(), labels.end(), label) == labels.end()) labels.push_back(label);
    columns.insert(cell.subject.m);
    texts[{label, cell.subject.m}] = cell.text;
  }
  if (labels.empty()) return;
  std::printf("\n| %s, GB/s where reading bounds, else GOP/s (fraction) |", section.c_str());
  for (int64_t m : columns) std::printf(" M = %ld |", static_cast<long>(m));
  std::printf("\n| --- |");
  for (size_t i = 0; i < columns.size(); ++i) std::printf(" --- |");
  for (const std::string& label : labels) {
    std::printf("\n| %s |", label.c_str());
    for (int64_t m : columns) {
      const auto found = texts.find({label, m});
      std::printf(" %s |", found == texts.end() ? "" : found->second.c_str());
    }
  }
  std::printf("\n");
}

void FigureTable::WriteCsv(const Subject& subject, double seconds, double gbps, double gops,
                           const std::string& bound, double ceiling, double fraction,
                           double core_share) {
  if (csv_ == nullptr) return;
  std::fprintf(csv_, "%s,%s,%s,%s,%s,%d,%ld,%ld,%ld,%.3f,%.3f,%.2f,%s,%.2f,%.4f,%.3f\n",
               subject.section.c_str(), subject.model.c_str(), subject.name.c_str(),
               subject.format.c_str(), isa_.c_str(), num_threads_, static_cast<long>(subject.n),
               static_cast<long>(subject.k), static_cast<long>(subject.m), seconds * 1e6, gbps,
               gops, bound.c_str(), ceiling, fraction, core_share);
  std::fflush(csv_);
}

}  // namespace fastgen::bench
