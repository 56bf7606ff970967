// ReadHfRope: RoPE's base and scaling from config.json, in any of its spellings: rope_theta beside
// rope_scaling, or both in rope_parameters; the scaling's name under "rope_type" or "type".
//
// Scaling by kind, each with the fields that it reads; a field that another kind reads, or none,
// is refused:
//   default
//   linear   factor
//   llama3   factor, low_freq_factor, high_freq_factor, original_max_position_embeddings
//   yarn     factor, attention_factor or mscale with mscale_all_dim, beta_fast, beta_slow,
//   truncate,
//            original_max_position_embeddings (absent: max_position_embeddings)
//   dynamic  factor. It stretches the base only beyond max_position_embeddings, which no sequence
//            here passes: up to there it is the default.
// The formulas are in rope_table.h. A yarn model that gives the context it was trained for serves
// factor times that, also where max_position_embeddings still says what it was trained for.
// Thread rule: pure.
// Tested by tests/engine/model/hf_config_test.cc.
#pragma once

#include "engine/model/config_fields.h"
#include "engine/model/model_config.h"

namespace fastgen {

// REQUIRES: config->max_position was read. Failures go to `fields`.
void ReadHfRope(ConfigFields* fields, ModelConfig* config);

}  // namespace fastgen
