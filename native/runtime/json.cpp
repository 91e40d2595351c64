#include "json.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <locale>
#include <sstream>

namespace lavolta {
namespace {

constexpr int kMaxDepth = 64;
// A header of 100 MB could ask for a hundred times its size in nodes; no bundle comes near this.
constexpr size_t kMaxNodes = size_t{1} << 20;

class Parser {
   public:
    explicit Parser(std::string_view text) : text_(text) {}

    Json document() {
        Json value = parse(0);
        space();
        if (at_ != text_.size()) error("text after the end");
        return value;
    }

   private:
    std::string_view text_;
    size_t at_ = 0;
    size_t nodes_ = 0;

    [[noreturn]] void error(const char* what) const { throw JsonError{what, at_}; }

    char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

    void space() {
        while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r')) {
            ++at_;
        }
    }

    bool take(char c) {
        if (at_ >= text_.size() || text_[at_] != c) return false;
        ++at_;
        return true;
    }

    void word(std::string_view expected) {
        if (text_.substr(at_, expected.size()) != expected) error("an unknown word");
        at_ += expected.size();
    }

    Json parse(int depth) {
        if (depth > kMaxDepth) error("nesting too deep");
        if (++nodes_ > kMaxNodes) error("too many values");
        space();
        Json value;
        switch (peek()) {
            case '{':
                ++at_;
                value.type = Json::Type::object;
                object(value, depth);
                break;
            case '[':
                ++at_;
                value.type = Json::Type::array;
                array(value, depth);
                break;
            case '"':
                value.type = Json::Type::string;
                value.string = string();
                break;
            case 't':
                word("true");
                value.type = Json::Type::boolean;
                value.boolean = true;
                break;
            case 'f':
                word("false");
                value.type = Json::Type::boolean;
                break;
            case 'n':
                word("null");
                break;
            default:
                number(value);
        }
        return value;
    }

    void array(Json& value, int depth) {
        space();
        if (take(']')) return;
        do {
            value.items.push_back(parse(depth + 1));
            space();
        } while (take(','));
        if (!take(']')) error("an array without end");
    }

    void object(Json& value, int depth) {
        space();
        if (take('}')) return;
        do {
            space();
            if (peek() != '"') error("a key that is not a string");
            std::string key = string();
            space();
            if (!take(':')) error("a key without value");
            value.members.emplace_back(std::move(key), parse(depth + 1));
            space();
        } while (take(','));
        if (!take('}')) error("an object without end");
        std::vector<std::string_view> keys;
        for (const auto& member : value.members) keys.push_back(member.first);
        std::sort(keys.begin(), keys.end());
        if (std::adjacent_find(keys.begin(), keys.end()) != keys.end()) error("a key twice");
    }

    unsigned hex4() {
        unsigned code = 0;
        for (int i = 0; i < 4; ++i) {
            const char c = peek();
            unsigned digit;
            if (c >= '0' && c <= '9') {
                digit = static_cast<unsigned>(c - '0');
            } else if (c >= 'a' && c <= 'f') {
                digit = static_cast<unsigned>(c - 'a' + 10);
            } else if (c >= 'A' && c <= 'F') {
                digit = static_cast<unsigned>(c - 'A' + 10);
            } else {
                error("a broken \\u escape");
            }
            code = code * 16 + digit;
            ++at_;
        }
        return code;
    }

    void append_utf8(std::string& out, unsigned code) {
        if (code < 0x80) {
            out += static_cast<char>(code);
        } else if (code < 0x800) {
            out += static_cast<char>(0xC0 | (code >> 6));
            out += static_cast<char>(0x80 | (code & 0x3F));
        } else if (code < 0x10000) {
            out += static_cast<char>(0xE0 | (code >> 12));
            out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
            out += static_cast<char>(0x80 | (code & 0x3F));
        } else {
            out += static_cast<char>(0xF0 | (code >> 18));
            out += static_cast<char>(0x80 | ((code >> 12) & 0x3F));
            out += static_cast<char>(0x80 | ((code >> 6) & 0x3F));
            out += static_cast<char>(0x80 | (code & 0x3F));
        }
    }

    std::string string() {
        std::string out;
        ++at_;
        while (true) {
            if (at_ >= text_.size()) error("a string without end");
            const char c = text_[at_];
            if (c == '"') break;
            if (static_cast<unsigned char>(c) < 0x20) error("a control character in a string");
            if (c == '\\') {
                ++at_;
                escape(out);
                continue;
            }
            const size_t length = utf8_length(text_, at_);
            if (length == 0) error("text that is not UTF-8");
            out.append(text_, at_, length);
            at_ += length;
        }
        ++at_;
        return out;
    }

    void escape(std::string& out) {
        const char c = peek();
        ++at_;
        switch (c) {
            case '"':
            case '\\':
            case '/':
                out += c;
                return;
            case 'b':
                out += '\b';
                return;
            case 'f':
                out += '\f';
                return;
            case 'n':
                out += '\n';
                return;
            case 'r':
                out += '\r';
                return;
            case 't':
                out += '\t';
                return;
            case 'u':
                break;
            default:
                error("an unknown escape");
        }
        unsigned code = hex4();
        if (code >= 0xD800 && code < 0xDC00) {
            if (!take('\\') || !take('u')) error("half a surrogate pair");
            const unsigned low = hex4();
            if (low < 0xDC00 || low > 0xDFFF) error("half a surrogate pair");
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        } else if (code >= 0xDC00 && code <= 0xDFFF) {
            error("half a surrogate pair");
        }
        append_utf8(out, code);
    }

    bool digit() const { return peek() >= '0' && peek() <= '9'; }

    void number(Json& value) {
        const size_t start = at_;
        bool integral = true;
        take('-');
        if (!digit()) error("an unknown character");
        if (take('0')) {
            if (digit()) error("a number with a leading zero");
        }
        while (digit()) ++at_;
        if (take('.')) {
            integral = false;
            if (!digit()) error("a number without digits after the point");
            while (digit()) ++at_;
        }
        if (peek() == 'e' || peek() == 'E') {
            integral = false;
            ++at_;
            if (!take('+')) take('-');
            if (!digit()) error("a number without exponent digits");
            while (digit()) ++at_;
        }
        const std::string_view token = text_.substr(start, at_ - start);
        // 18 digits always fit; a longer integer is read as a number.
        if (integral && token.size() <= 18) {
            const bool negative = token[0] == '-';
            for (const char c : token.substr(negative ? 1 : 0)) value.integer = value.integer * 10 + (c - '0');
            if (negative) value.integer = -value.integer;
            value.number = static_cast<double>(value.integer);
            value.type = Json::Type::integer;
            return;
        }
        // A stream and not strtod: the caller's locale may write a comma for the point.
        std::istringstream stream{std::string(token)};
        stream.imbue(std::locale::classic());
        stream >> value.number;
        if (stream.fail() || !std::isfinite(value.number)) error("a number out of range");
        value.type = Json::Type::number;
    }
};

}  // namespace

const Json* Json::find(std::string_view name) const {
    for (const auto& member : members) {
        if (member.first == name) return &member.second;
    }
    return nullptr;
}

size_t utf8_length(std::string_view text, size_t at) {
    const auto byte = [&](size_t i) -> unsigned { return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u; };
    const auto tail = [&](size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
    const unsigned lead = byte(0);
    if (lead < 0x80) return 1;
    if (lead >= 0xC2 && lead <= 0xDF) return tail(1) ? 2 : 0;
    if (lead >= 0xE0 && lead <= 0xEF) {
        if (!tail(1) || !tail(2) || (lead == 0xE0 && byte(1) < 0xA0) || (lead == 0xED && byte(1) > 0x9F)) return 0;
        return 3;
    }
    if (lead >= 0xF0 && lead <= 0xF4) {
        if (!tail(1) || !tail(2) || !tail(3) || (lead == 0xF0 && byte(1) < 0x90) || (lead == 0xF4 && byte(1) > 0x8F)) return 0;
        return 4;
    }
    return 0;
}

Json parse_json(std::string_view text) { return Parser(text).document(); }

std::string json_number(double value, const char* format) {
    char text[40];
    std::snprintf(text, sizeof text, format, value);
    for (char* c = text; *c; ++c) {
        if (*c == ',') *c = '.';
    }
    return text;
}

std::string json_quote(std::string_view text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            char escaped[8];
            std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(c));
            out += escaped;
        } else {
            out += c;
        }
    }
    return out + '"';
}

}  // namespace lavolta
