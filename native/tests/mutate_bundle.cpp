// mutate_bundle FILE COUNT SEED: runs the fuzz target on COUNT mutations of a valid bundle, the same ones for the same seed.
#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "lavolta.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;

class Mutator {
   public:
    Mutator(Bytes original, uint32_t seed) : original_(std::move(original)), random_(seed) {
        for (int i = 7; i >= 0; --i) header_ = header_ << 8 | original_[static_cast<size_t>(i)];
    }

    Bytes next() {
        Bytes bytes = original_;
        for (size_t i = below(3) + 1; i > 0; --i) mutate(bytes);
        return bytes;
    }

   private:
    Bytes original_;
    std::mt19937 random_;
    uint64_t header_ = 0;

    size_t below(size_t limit) { return limit ? random_() % limit : 0; }

    void mutate(Bytes& bytes) {
        if (bytes.size() < 16) return;
        const size_t payload = std::min<size_t>(bytes.size() - 1, 8 + header_);
        switch (below(8)) {
            case 0:
                bytes[below(bytes.size())] ^= static_cast<uint8_t>(1u << below(8));
                return;
            case 1:  // most short prefixes are the same case
                bytes.resize(below(bytes.size()));
                return;
            case 2:
                bytes.insert(bytes.begin() + static_cast<ptrdiff_t>(below(bytes.size())), static_cast<uint8_t>(random_()));
                return;
            case 3: {
                const size_t at = below(bytes.size());
                bytes.erase(bytes.begin() + static_cast<ptrdiff_t>(at),
                            bytes.begin() + static_cast<ptrdiff_t>(std::min(bytes.size(), at + 1 + below(9))));
                return;
            }
            case 4:
            case 5: {  // another number in the header: it stays JSON
                const size_t start = 8 + below(payload - 8);
                const auto digit = std::find_if(bytes.begin() + static_cast<ptrdiff_t>(start),
                                                bytes.begin() + static_cast<ptrdiff_t>(payload),
                                                [](uint8_t c) { return std::isdigit(c) != 0; });
                if (digit != bytes.end()) *digit = static_cast<uint8_t>('0' + below(10));
                return;
            }
            default: {  // an index or a weight of the payload
                static const uint32_t values[] = {0, 1, 2, 0x7F, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7F800000};
                const uint32_t value = values[below(std::size(values))];
                const size_t at = payload + below(bytes.size() - payload) / 4 * 4;
                std::memcpy(bytes.data() + at, &value, std::min<size_t>(below(2) ? 4 : 2, bytes.size() - at));
                return;
            }
        }
    }
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: mutate_bundle FILE COUNT SEED\n");
        return 2;
    }
    std::ifstream file(argv[1], std::ios::binary);
    const Bytes original((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (original.size() < 16) {
        std::fprintf(stderr, "%s is not a bundle\n", argv[1]);
        return 2;
    }
    Mutator mutator(original, static_cast<uint32_t>(std::atoi(argv[3])));
    std::map<std::string, int> counts;
    const int count = std::atoi(argv[2]);
    for (int i = 0; i <= count; ++i) {
        const Bytes bytes = i == 0 ? original : mutator.next();
        // A block of its own size, so that the sanitizer sees a read of one byte past the end.
        const auto exact = std::make_unique<uint8_t[]>(bytes.size());
        std::copy(bytes.begin(), bytes.end(), exact.get());
        LLVMFuzzerTestOneInput(exact.get(), bytes.size());
        lavolta_model* model = nullptr;
        ++counts[lavolta_status_name(lavolta_open_memory(exact.get(), bytes.size(), nullptr, &model))];
        lavolta_close(model);
    }
    for (const auto& [name, times] : counts) std::printf("%s %d\n", name.c_str(), times);
    return 0;
}
