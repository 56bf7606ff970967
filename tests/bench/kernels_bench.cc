// kernels_bench: the CPU backend's kernels against what this machine can do, probed in the same
// process. Its --help explains it; nothing fails, people judge.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/cpu_topology.h"
#include "tests/bench/bench_run.h"

namespace fastgen::bench {
namespace {

constexpr char kAbout[] =
    "kernels_bench: how close the CPU's kernels come to what this machine can do.\n\n"
    "  kernels_bench --quick                       a first look, about a minute\n"
    "  kernels_bench --shapes 1b --csv 1b.csv      a 1B model's matrices, attention and sampling\n"
    "  kernels_bench --isa avx2 --filter gate_up   one matrix on another instruction set\n"
    "  kernels_bench --probes                      the ceilings alone\n";

constexpr char kNotes[] =
    "How to read it. GB/s are the bytes of weights or of KV pages that one call reads, GOP/s its\n"
    "multiply-adds, counted as 2. `bound` names what allows the least: `read`, linear streams\n"
    "from memory, or the instruction that this path multiplies with (a forced --isa is held\n"
    "against its own). `ceiling` is the bound's rate, probed beside the figure, A B A B, and\n"
    "`fraction` the time that it allows over the time taken: 1 is perfect. `cores` is how much of\n"
    "its cores this process had; below about 0.95 other programs ran, or the work has a serial\n"
    "part. Weights and pages rotate through four times the last cache, as layers do.\n"
    "With --threads 1 times are processor time, which a busy machine lengthens least.\n"
    "Figures are medians; on a shared machine only fractions can be compared.";

constexpr int64_t kMinSetBytes = int64_t{128} << 20;

struct BenchOptions {
  BackendOptions backend;
  std::string shapes = "smollm2,1b,8b,formats";
  std::string filter;
  std::string csv;
  bool is_fp32 = false;
  bool is_quick = false;
  bool is_probes = false;
  bool is_markdown = false;
  std::vector<int64_t> rows;
};

void AddFlags(CLI::App& app, BenchOptions* options) {
  app.add_option("--isa", options->backend.cpu_isa,
                 "Instruction set of the kernels, as fastgend's --cpu-isa; the best unless given");
  app.add_option("--threads", options->backend.num_threads, "0: one for each usable core")
      ->check(CLI::Range(0, 1024));
  app.add_option("--shapes", options->shapes, "Of these models, by commas")->capture_default_str();
  app.add_option("--filter", options->filter,
                 "Only figures whose \"section model/name format\" holds this text, as in "
                 "\"product 1b\", \"decode\", \"Q4_K\"");
  app.add_option("--rows", options->rows, "Rows M of the products, by commas")
      ->delimiter(',')
      ->check(CLI::Range(1, 4096));
  app.add_option("--csv", options->csv, "Write every figure there too");
  app.add_flag("--fp32", options->is_fp32, "The fp32 compute mode");
  app.add_flag("--quick", options->is_quick,
               "SmolLM2 only unless --shapes is given, fewer M, shorter runs");
  app.add_flag("--markdown", options->is_markdown,
               "At the end, products and attention once more as tables for docs/benchmarks.md");
  app.add_flag("--probes", options->is_probes, "Print the ceilings and end");
}

// "model name, 2 cores, L3 32 MiB; flags: ..."
std::string DescribeMachine(int64_t l3_bytes) {
  std::ifstream file("/proc/cpuinfo");
  std::string name = "unknown processor", flags, line;
  while (std::getline(file, line) && flags.empty()) {
    const size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    if (line.rfind("model name", 0) == 0) name = line.substr(colon + 2);
    if (line.rfind("flags", 0) == 0) flags = line.substr(colon + 2);
  }
  std::istringstream words(flags);
  std::string wanted, word;
  while (words >> word) {
    for (const char* prefix : {"avx", "amx", "fma", "f16c"}) {
      if (word.rfind(prefix, 0) == 0) absl::StrAppend(&wanted, " ", word);
    }
  }
  return absl::StrCat(name, ", ", static_cast<int>(cpu::UsableCores().size()),
                      " cores, last cache ", l3_bytes >> 20, " MiB, flags:", wanted);
}

// What one core sees of the last cache; sysconf counts other tenants' on some machines.
int64_t LastCacheBytes() {
  std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index3/size");
  int64_t kib = 0;
  return file >> kib && kib > 0 ? kib << 10 : int64_t{32} << 20;
}

void PrintProbes(Ceilings* ceilings, FigureTable* table, int num_threads) {
  std::printf("\nCeilings, %d threads\n", num_threads);
  table->AddProbe("read", "GB/s", ceilings->Read());
  for (int i = 0; i < kNumInstructions; ++i) {
    const Instruction instruction = static_cast<Instruction>(i);
    if (!HasInstruction(instruction)) continue;
    table->AddProbe(std::string(InstructionName(instruction)),
                    IsInteger(instruction) ? "GOP/s" : "GFLOP/s", ceilings->Peak(instruction));
  }
  if (HasInstruction(Instruction::kAmxInt8) && HasInstruction(Instruction::kVnni512)) {
    // The host gives tiles in one of two states: some 7 times or some 2 times of vpdpbusd.
    const bool is_fast =
        ceilings->Peak(Instruction::kAmxInt8) > 4 * ceilings->Peak(Instruction::kVnni512);
    std::printf("  AMX is in its %s state\n", is_fast ? "fast" : "slow");
  }
}

absl::StatusOr<std::vector<ModelShape>> ChosenModels(const std::string& names) {
  const std::vector<ModelShape> all = AllModels();
  std::vector<ModelShape> chosen;
  std::istringstream words(names);
  std::string name;
  while (std::getline(words, name, ',')) {
    const auto found = std::find_if(all.begin(), all.end(),
                                    [&](const ModelShape& model) { return model.name == name; });
    if (found == all.end()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--shapes: \"", name, "\" is not one of \"smollm2\", \"1b\", \"8b\", \"formats\""));
    }
    chosen.push_back(*found);
  }
  return chosen;
}

constexpr char kColumns[] =
    "                                    N x K         M         us    GB/s    GOP/s   bound       "
    "    "
    "ceiling  frac cores";

void BenchModels(const BenchRun& run, const std::vector<ModelShape>& models) {
  run.table->Section(absl::StrCat("Products: N outputs x K inputs, M rows\n", kColumns));
  for (const ModelShape& model : models) BenchProducts(run, model);
  run.table->Section(absl::StrCat(
      "Attention: N keys x K values in a head, M queries of each sequence\n", kColumns));
  for (const ModelShape& model : models) BenchAttention(run, model);
  run.table->Section("Ops of rows: N rows of K values\n" + std::string(kColumns, 62));
  for (const ModelShape& model : models) BenchRowOps(run, model);
  run.table->Section("Sampling: N rows of K logits\n" + std::string(kColumns, 62));
  for (const ModelShape& model : models) BenchSampling(run, model);
}

absl::Status RunBench(BenchOptions options) {
  auto isa = cpu::ChooseIsa(options.backend.cpu_isa);
  if (!isa.ok()) return isa.status();
  auto models = ChosenModels(options.shapes);
  if (!models.ok()) return models.status();
  if (options.is_fp32) options.backend.compute_dtype = ComputeDType::kF32;
  if (options.backend.num_threads == 0)
    options.backend.num_threads = static_cast<int>(cpu::UsableCores().size());

  const int64_t l3_bytes = LastCacheBytes();
  const std::string machine = DescribeMachine(l3_bytes);
  const std::string isa_name(cpu::IsaName(*isa));
  BenchTeam team(options.backend.num_threads);
  BenchRun run;
  run.backend = options.backend;
  run.instructions = InstructionsOf(isa_name);
  run.set_bytes = std::clamp(4 * l3_bytes, kMinSetBytes, kMaxSetBytes);
  run.row_counts = !options.rows.empty() ? options.rows
                   : options.is_quick    ? std::vector<int64_t>{1, 8, 32, 128}
                                         : std::vector<int64_t>{1, 2, 4, 8, 16, 32, 128, 512};
  Ceilings ceilings(&team, run.set_bytes, options.is_quick ? 0.04 : 0.2);
  FigureTable table(isa_name, options.backend.num_threads, options.filter);
  run.ceilings = &ceilings;
  run.table = &table;
  if (!options.csv.empty()) {
    const absl::Status opened = table.OpenCsv(options.csv, machine);
    if (!opened.ok()) return opened;
  }
  std::printf("%s\nkernels: %s, %d threads, weights and pages rotate through %ld MiB\n\n%s\n",
              machine.c_str(), isa_name.c_str(), options.backend.num_threads,
              static_cast<long>(run.set_bytes >> 20), kNotes);
  PrintProbes(&ceilings, &table, options.backend.num_threads);
  if (!options.is_probes) BenchModels(run, *models);
  if (options.is_markdown) {
    table.PrintSummary("product");
    table.PrintSummary("attention");
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  CLI::App app(kAbout);
  app.footer(kNotes);
  BenchOptions options;
  AddFlags(app, &options);
  CLI11_PARSE(app, argc, argv);
  if (options.is_quick && app.count("--shapes") == 0) options.shapes = "smollm2";
  const absl::Status status = RunBench(options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "kernels_bench: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace
}  // namespace fastgen::bench

int main(int argc, char** argv) { return fastgen::bench::Main(argc, argv); }
