#include "clients/fgchat/conversation.h"

#include <catch2/catch.hpp>

namespace fastgen {
namespace {

using Kind = ChatInput::Kind;

TEST_CASE("a line that does not start with a slash is a message, spaces kept", "[clients]") {
  const ChatInput input = ParseChatInput("  hello /q ", 3);
  CHECK(input.kind == Kind::kMessage);
  CHECK(input.text == "  hello /q ");
  CHECK(ParseChatInput(" \t ", 3).kind == Kind::kEmpty);
}

TEST_CASE("commands are recognised with spaces around them", "[clients]") {
  CHECK(ParseChatInput(" /q ", 1).kind == Kind::kQuit);
  CHECK(ParseChatInput("/m", 1).kind == Kind::kMultiLine);
  CHECK(ParseChatInput("/h", 1).kind == Kind::kHelp);
  const ChatInput reset = ParseChatInput("/r  2", 3);
  CHECK(reset.kind == Kind::kReset);
  CHECK(reset.round == 2);
  CHECK(ParseChatInput("/r", 3).round == 1);
}

TEST_CASE("a mistaken command says what to type instead", "[clients]") {
  for (const char* line : {"/r 0", "/r 4", "/r x", "/r 1 2", "/r -1", "/r 99999999999999"}) {
    const ChatInput input = ParseChatInput(line, 3);
    CHECK(input.kind == Kind::kMistake);
    CHECK(input.text.find("1 to 3") != std::string::npos);
  }
  for (const char* line : {"/quit", "/", "/q now", "/etc/passwd is a file"}) {
    CHECK(ParseChatInput(line, 3).kind == Kind::kMistake);
  }
}

TEST_CASE("the chat holds the system message, all rounds in order, then the new message", "[clients]") {
  Conversation conversation("Be brief.");
  conversation.Add("a", "A");
  conversation.Add("b", "B");
  CHECK(conversation.round() == 3);
  const fastgen::v1::Chat chat = conversation.With("c");
  REQUIRE(chat.messages_size() == 6);
  CHECK(chat.messages(0).role() == "system");
  CHECK(chat.messages(2).role() == "assistant");
  CHECK(chat.messages(2).content() == "A");
  CHECK(chat.messages(5).role() == "user");
  CHECK(chat.messages(5).content() == "c");
}

TEST_CASE("resetting to a round forgets it and all after it", "[clients]") {
  Conversation conversation("");
  conversation.Add("a", "A");
  conversation.Add("b", "B");
  conversation.ResetTo(2);
  CHECK(conversation.round() == 2);
  CHECK(conversation.With("x").messages_size() == 3);
  conversation.ResetTo(1);
  CHECK(conversation.With("x").messages_size() == 1);
}

}  // namespace
}  // namespace fastgen
