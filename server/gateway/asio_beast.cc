// The one translation unit that holds Asio's and Beast's non-template code (see CMakeLists.txt:
// separate compilation).
#include <boost/asio/impl/src.hpp>
#include <boost/beast/src.hpp>
