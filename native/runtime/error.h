// The one exception of the engine; the C interface turns it into a status and a sentence.
#pragma once

#include <string>
#include <utility>

#include "lavolta.h"

namespace lavolta {

struct Error {
    lavolta_status status;
    std::string message;
};

[[noreturn]] inline void fail(lavolta_status status, std::string message) { throw Error{status, std::move(message)}; }

}  // namespace lavolta
