// Feeds arbitrary bytes to the reader of config.json and generation_config.json; a configuration
// that comes of it must be sound enough to list its tensors and compute its RoPE frequencies.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "engine/model/model_config.h"
#include "engine/model/rope_table.h"
#include "engine/model/weight_names.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  // The first line is config.json, the rest generation_config.json.
  const size_t line = input.find('\n');
  const std::string_view generation =
      line == std::string_view::npos ? std::string_view() : input.substr(line + 1);
  const auto config = fastgen::ParseHfConfig(input.substr(0, line), generation);
  if (!config.ok()) {
    // A message names the file at fault and stays short, whatever the file holds.
    const std::string_view message(config.status().message().data(),
                                   config.status().message().size());
    const bool names_file =
        message.substr(0, 11) == "config.json" || message.substr(0, 22) == "generation_config.json";
    if (!names_file) std::abort();
    return 0;
  }
  if (!fastgen::CheckConfig(*config).ok()) std::abort();
  for (int64_t layer = 0; layer < config->num_layers; ++layer) {
    if (config->window(layer) < 0) std::abort();
  }
  if (fastgen::RequiredTensors(*config).empty()) std::abort();
  for (double frequency : fastgen::RopeFrequencies(*config)) {
    if (!std::isfinite(frequency) || frequency < 0) std::abort();
  }
  return 0;
}
