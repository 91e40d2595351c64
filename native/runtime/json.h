// Strict JSON (RFC 8259) for headers and manifests: no duplicate keys, bounded depth and size.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lavolta {

struct Json {
    enum class Type : uint8_t { null, boolean, integer, number, string, array, object };

    Type type = Type::null;
    bool boolean = false;
    int64_t integer = 0;  // where type is integer
    double number = 0.0;  // where type is integer or number
    std::string string;
    std::vector<Json> items;
    std::vector<std::pair<std::string, Json>> members;

    bool is(Type t) const { return type == t; }
    // The member with this name, or null: also for what is not an object.
    const Json* find(std::string_view name) const;
};

struct JsonError {
    const char* what;
    size_t offset;  // bytes
};

// Throws JsonError.
Json parse_json(std::string_view text);

// Bytes of the well-formed UTF-8 sequence at `at` (Unicode table 3-7), or 0.
size_t utf8_length(std::string_view text, size_t at);

// `value` by a printf format, with a point whatever the caller's locale.
std::string json_number(double value, const char* format);

// `text` as a JSON string, quoted; `text` must be UTF-8.
std::string json_quote(std::string_view text);

}  // namespace lavolta
