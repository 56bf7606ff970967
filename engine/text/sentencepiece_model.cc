#include "engine/text/sentencepiece_model.h"

#include <sentencepiece_processor.h>

#include <exception>

namespace fastgen {

struct SentencePieceModel::Library {
  sentencepiece::SentencePieceProcessor processor;
};

SentencePieceModel::SentencePieceModel() : library_(std::make_unique<Library>()) {}
SentencePieceModel::~SentencePieceModel() = default;

std::unique_ptr<SentencePieceModel> SentencePieceModel::Load(std::string_view serialized,
                                                             std::string* error) {
  std::unique_ptr<SentencePieceModel> model(new SentencePieceModel);
  try {
    const auto status = model->library_->processor.LoadFromSerializedProto(serialized);
    if (status.ok()) return model;
    *error = status.ToString();
  } catch (const std::exception& e) {
    *error = e.what();
  }
  return nullptr;
}

bool SentencePieceModel::Encode(std::string_view text, std::vector<int>* ids,
                                std::string* error) const {
  try {
    const auto status = library_->processor.Encode(text, ids);
    if (status.ok()) return true;
    *error = status.ToString();
  } catch (const std::exception& e) {
    *error = e.what();
  }
  return false;
}

int32_t SentencePieceModel::num_pieces() const { return library_->processor.GetPieceSize(); }

SentencePieceModel::Kind SentencePieceModel::KindOf(int32_t id) const {
  if (library_->processor.IsControl(id)) return Kind::kControl;
  if (library_->processor.IsUnknown(id)) return Kind::kUnknown;
  if (library_->processor.IsByte(id)) return Kind::kByte;
  if (library_->processor.IsUnused(id)) return Kind::kUnused;
  return Kind::kText;
}

std::string SentencePieceModel::Piece(int32_t id) const {
  return library_->processor.IdToPiece(id);
}

int32_t SentencePieceModel::bos_id() const { return library_->processor.bos_id(); }

}  // namespace fastgen
