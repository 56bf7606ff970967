#include "engine/model/mask_filler.h"

#include <utility>

#include "base/check.h"
#include "base/int_math.h"

namespace fastgen {

MaskFiller::MaskFiller(int32_t num_slots, int64_t vocab)
    : num_words_(static_cast<size_t>(CeilDiv<int64_t>(vocab, 32))),
      slots_(static_cast<size_t>(num_slots)) {
  queue_.reserve(static_cast<size_t>(num_slots));
}

MaskFiller::~MaskFiller() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    has_work_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

void MaskFiller::Start(int32_t slot_index, std::shared_ptr<const TokenConstraint> constraint,
                       absl::Span<const int32_t> output) {
  CHECK(constraint != nullptr);
  Slot& slot = slots_[static_cast<size_t>(slot_index)];
  Settle(&slot);
  slot.is_new = true;
  slot.constraint = std::move(constraint);
  slot.tokens.assign(output.begin(), output.end());
  slot.mask.resize(num_words_);
  slot.status = absl::OkStatus();
  Enqueue(slot_index);
  FreeEnded();
}

void MaskFiller::Push(int32_t slot_index, int32_t token) {
  Slot& slot = slots_[static_cast<size_t>(slot_index)];
  CHECK(!slot.mask.empty() && slot.tokens.empty()) << "slot " << slot_index;
  slot.tokens.push_back(token);
  Enqueue(slot_index);
}

absl::Status MaskFiller::Wait(int32_t slot_index, absl::Span<uint32_t>* mask) {
  Slot& slot = slots_[static_cast<size_t>(slot_index)];
  CHECK(!slot.mask.empty()) << "slot " << slot_index;
  Settle(&slot);
  *mask = absl::MakeSpan(slot.mask);
  return slot.status;
}

void MaskFiller::Enqueue(int32_t slot_index) {
  if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
  MutexLock lock(&mutex_);
  EnqueueLocked(slot_index);
}

void MaskFiller::EnqueueLocked(int32_t slot_index) {
  Slot& slot = slots_[static_cast<size_t>(slot_index)];
  slot.state = State::kQueued;
  if (!std::exchange(slot.is_listed, true)) queue_.push_back(slot_index);
  has_work_.Signal();
}

void MaskFiller::FreeEnded() {
  MutexLock lock(&mutex_);
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    if (slot.state != State::kIdle || slot.matcher == nullptr || !slot.constraint.expired())
      continue;
    EnqueueLocked(static_cast<int32_t>(i));
  }
}

void MaskFiller::Settle(Slot* slot) {
  {
    MutexLock lock(&mutex_);
    while (slot->state == State::kRunning) has_done_.Wait(&mutex_);
    if (slot->state == State::kIdle) return;
    slot->state = State::kIdle;  // the worker passes it over
  }
  Work(slot);
}

void MaskFiller::Work(Slot* slot) {
  const std::shared_ptr<const TokenConstraint> constraint = slot->constraint.lock();
  if (std::exchange(slot->is_new, false) || constraint == nullptr) slot->matcher = nullptr;
  if (constraint == nullptr) {
    slot->tokens.clear();
    slot->status = absl::CancelledError("the sequence has ended");
    return;
  }
  if (slot->matcher == nullptr && slot->status.ok()) {
    auto matcher = constraint->NewMatcher();
    slot->status = matcher.status();
    if (matcher.ok()) slot->matcher = *std::move(matcher);
  }
  for (size_t i = 0; i < slot->tokens.size() && slot->status.ok(); ++i) {
    slot->status = slot->matcher->Accept(slot->tokens[i]);
  }
  slot->tokens.clear();
  if (slot->status.ok()) slot->status = slot->matcher->FillMask(absl::MakeSpan(slot->mask));
}

void MaskFiller::Run() {
  while (true) {
    Slot* slot = nullptr;
    {
      MutexLock lock(&mutex_);
      while (queue_.empty() && !stopping_) has_work_.Wait(&mutex_);
      if (stopping_) return;
      slot = &slots_[static_cast<size_t>(queue_.front())];
      queue_.erase(queue_.begin());
      slot->is_listed = false;
      if (slot->state != State::kQueued) continue;
      slot->state = State::kRunning;
    }
    Work(slot);
    MutexLock lock(&mutex_);
    slot->state = State::kIdle;
    has_done_.SignalAll();
  }
}

}  // namespace fastgen
